"""A job's parameters, resolved against the model that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from reverie_inference.engine.init_image import Start, size_of, start_of
from reverie_inference.engine.picture_plan import PicturePlan, plan_picture
from reverie_inference.engine.pictures import NO_PICTURES, Pictures
from reverie_inference.engine.schedulers import make_scheduler
from reverie_inference.families.port import Asked
from reverie_inference.families.registry import families
from reverie_inference.models.loaded import LoadedModel, Size
from reverie_inference.modes.catalogue import Lora, Mode
from reverie_inference.upscalers.network import Upscaler
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import MAX_STYLE_LEVEL, GenerateParams, JobMeta, StyleLora
from reverie_protocol.sizes import parse_size

BACKEND = "diffusers"
Number = TypeVar("Number", int, float)


class Request(msgspec.Struct, frozen=True):
    """One picture to make: nothing is open any more.  `scheduler` is a fresh object of this job's own."""

    model: LoadedModel
    loras: tuple[Lora, ...]
    prompt: str
    negative_prompt: str | None
    plan: PicturePlan
    steps: int
    guidance: float
    seed: int
    scheduler_name: str
    scheduler: Any
    start: Start | None
    variations: tuple[tuple[int, float], ...]
    picture_format: str
    jpeg_quality: int
    meta: JobMeta

    @property
    def own_loop(self) -> bool:
        """Whether the pipeline's own loop makes it: of a family that the engine does not know, or not this way."""
        family = families().get(self.model.family)
        return family is None or (self.start is not None and not family.starts_from_pictures)

    @property
    def asked(self) -> Asked:
        """What its text encoders are asked."""
        return Asked(self.prompt, self.negative_prompt, self.guidance, self.plan.drawn)


def resolve_request(
    params: GenerateParams,
    model: LoadedModel,
    *,
    mode: Mode,
    styles: Mapping[str, Lora],
    upscalers: Mapping[int, Upscaler],
    fallback_seed: int,
    pictures: Pictures = NO_PICTURES,
) -> Request:
    """Fill what the parameters leave open with the mode's defaults, then the model's; what they give always wins.

    ReverieError `invalid_field` naming the field, `style_not_found` or `superres_disabled`.
    """
    name, scheduler = make_scheduler(model.pipeline.scheduler, params.scheduler or mode.scheduler)
    loras = mode.loras + _style(params.style_lora, styles)
    default_size = mode.default_size or model.default_size
    if pictures.init is not None:
        default_size = size_of(pictures.init, model.size_multiple)
    plan = plan_picture(
        requested_size(params.size) if params.size is not None else default_size,
        model.native_size,
        scales=upscalers,
        native_only=model.native_only,
        multiple=model.size_multiple,
        superres=params.superres,
        magnitude=params.superres_magnitude,
    )
    steps = _given(params.num_inference_steps, _given(mode.default_steps, model.default_steps))
    guidance = _given(params.guidance_scale, _given(mode.default_guidance, model.default_guidance))
    seed = _given(params.seed, fallback_seed)
    start = start_of(params, model, pictures, drawn=plan.drawn, steps=steps)
    picture_format = params.superres_format if params.superres else "png"
    return Request(
        model=model,
        loras=loras,
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        plan=plan,
        steps=steps,
        guidance=guidance,
        seed=seed,
        scheduler_name=name,
        scheduler=scheduler,
        start=start,
        variations=tuple((variation.seed, variation.weight) for variation in params.variations),
        picture_format=picture_format,
        jpeg_quality=params.superres_quality,
        meta=JobMeta(
            seed=seed,
            backend=BACKEND,
            sr=params.superres,
            mode=mode.name,
            model=mode.shown.removesuffix(".safetensors"),
            scheduler=name,
            steps=steps,
            guidance=guidance,
            size=_text(plan.final),
            native_size=_text(plan.drawn),
            strength=0.0 if start is None else start.strength,
            sr_model=upscalers[plan.superres_scale].name if params.superres else "",
            sr_passes=plan.superres_passes,
            sr_scale_per_pass=plan.superres_scale if params.superres else 0,
            sr_format=params.superres_format if params.superres else "",
        ),
    )


def _style(wish: StyleLora, styles: Mapping[str, Lora]) -> tuple[Lora, ...]:
    """The LoRA of a style, as strong as the level says: level 8 is all of the style's own strength."""
    if wish.style is None or not wish.level:
        return ()
    style = styles.get(wish.style)
    if style is None:
        known = ", ".join(styles) or "none"
        raise ReverieError(ErrorCode.STYLE_NOT_FOUND, f"There is no style {wish.style!r}; there are {known}.")
    return (replace(style, strength=style.strength * wish.level / MAX_STYLE_LEVEL),)


def requested_size(text: str) -> Size:
    """Width and height of `WIDTHxHEIGHT`; ReverieError `invalid_field` beyond the bounds of the protocol."""
    try:
        return parse_size(text)
    except ValueError as error:
        field = FieldError(("size",), str(error), "bad_size")
        raise ReverieError(ErrorCode.INVALID_FIELD, f"size {error}.", fields=[field]) from error


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
