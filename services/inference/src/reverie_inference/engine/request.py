"""A job's parameters, resolved against the model that runs it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from reverie_inference.engine.picture_plan import SUPERRES_SCALE, PicturePlan, plan_picture
from reverie_inference.engine.schedulers import make_scheduler
from reverie_inference.models.loaded import LoadedModel, Size
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import GenerateParams, JobMeta
from reverie_protocol.sizes import parse_size

BACKEND = "diffusers"
Number = TypeVar("Number", int, float)


class Request(msgspec.Struct, frozen=True):
    """One picture to make: nothing is open any more.  `scheduler` is a fresh object of this job's own."""

    prompt: str
    negative_prompt: str | None
    plan: PicturePlan
    steps: int
    guidance: float
    seed: int
    scheduler_name: str
    scheduler: Any
    picture_format: str
    jpeg_quality: int
    meta: JobMeta


def resolve_request(
    params: GenerateParams, model: LoadedModel, *, scales: Collection[int], fallback_seed: int
) -> Request:
    """Fill what the parameters leave open with the model's defaults; what they give always wins.

    ReverieError `invalid_field` naming the field, or `superres_disabled`.
    """
    name, scheduler = make_scheduler(model.pipeline.scheduler, params.scheduler)
    if params.style_lora.style is not None and params.style_lora.level > 0:
        raise ReverieError(
            ErrorCode.STYLE_NOT_FOUND, f"There is no style {params.style_lora.style!r}; there are none."
        )
    plan = plan_picture(
        requested_size(params.size) if params.size is not None else model.default_size,
        model.native_size,
        scales=scales,
        native_only=model.native_only,
        multiple=model.size_multiple,
        superres=params.superres,
        magnitude=params.superres_magnitude,
    )
    steps = _given(params.num_inference_steps, model.default_steps)
    guidance = _given(params.guidance_scale, model.default_guidance)
    seed = _given(params.seed, fallback_seed)
    picture_format = params.superres_format if params.superres else "png"
    return Request(
        prompt=params.prompt,
        negative_prompt=params.negative_prompt,
        plan=plan,
        steps=steps,
        guidance=guidance,
        seed=seed,
        scheduler_name=name,
        scheduler=scheduler,
        picture_format=picture_format,
        jpeg_quality=params.superres_quality,
        meta=JobMeta(
            seed=seed,
            backend=BACKEND,
            sr=params.superres,
            mode=model.mode,
            model=model.mode,
            scheduler=name,
            steps=steps,
            guidance=guidance,
            size=_text(plan.final),
            native_size=_text(plan.drawn),
            sr_model="reverie-x2" if params.superres else "",
            sr_passes=plan.superres_passes,
            sr_scale_per_pass=SUPERRES_SCALE if params.superres else 0,
            sr_format=params.superres_format if params.superres else "",
        ),
    )


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
