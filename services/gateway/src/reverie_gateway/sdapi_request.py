"""A1111's `txt2img` and `img2img`, read: what is honoured, what asks for nothing, and what parameters follow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from reverie_gateway.dialect import BODY, Harmless, conflict, read_body
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import GenerateParams
from reverie_protocol.sdapi_bodies import ImageToImage, TextToImage
from reverie_protocol.sizes import parse_size

Body = TypeVar("Body", bound=TextToImage)

_PROMPT: Final = "say it in the prompt"
_OFF: Final = Harmless((False,))
#: What well-known clients send with every request counts as not sent.
HARMLESS: Final[dict[str, Harmless]] = {
    "alwayson_scripts": Harmless(({},), "no script is there; only scripts without arguments may be named"),
    "clip_skip": Harmless((0, 1)),
    "comments": Harmless(({},)),
    "controlnet_units": Harmless(([],), "ControlNet is not there"),
    "disable_extra_networks": Harmless(),
    "do_not_save_grid": Harmless(),
    "do_not_save_samples": Harmless(),
    "enable_hr": Harmless((False,), "use `superres`"),
    "eta": Harmless((0, 1), "the sampler's own holds"),
    "firstpass_image": Harmless(("",)),
    "firstphase_height": Harmless(),
    "firstphase_width": Harmless(),
    "hr_checkpoint_name": Harmless(),
    "hr_cfg": Harmless(),
    "hr_negative_prompt": Harmless(),
    "hr_prompt": Harmless(),
    "hr_resize_x": Harmless(),
    "hr_resize_y": Harmless(),
    "hr_sampler_name": Harmless(),
    "hr_scale": Harmless(),
    "hr_scheduler": Harmless(),
    "hr_second_pass_steps": Harmless(),
    "hr_upscaler": Harmless(),
    "infotext": Harmless(("",)),
    "override_settings_restore_afterwards": Harmless((True,), "POST /sdapi/v1/options changes settings"),
    "refiner_checkpoint": Harmless(("", "None"), "there is no refiner"),
    "refiner_switch_at": Harmless(),
    "restore_faces": _OFF,
    "s_churn": Harmless((0,), "the sampler's own holds"),
    "s_min_uncond": Harmless((0,)),
    "s_noise": Harmless((0, 1), "the sampler's own holds"),
    "s_tmax": Harmless((0,), "the sampler's own holds"),
    "s_tmin": Harmless((0,), "the sampler's own holds"),
    "save_images": Harmless(),  # every picture is kept
    "script_args": Harmless(([],), "no script is there"),
    "script_name": Harmless(("", "None"), "no script is there"),
    "seed_resize_from_h": Harmless((0, -1)),
    "seed_resize_from_w": Harmless((0, -1)),
    "styles": Harmless(([],), "use `style_lora`"),
    "subseed": Harmless(),  # it has no part without a strength
    "subseed_strength": Harmless((0,), "use another seed"),
    "tiling": _OFF,
}
_TEXT_HARMLESS: Final = HARMLESS | {"denoising_strength": Harmless()}  # of `enable_hr`
_IMAGE_HARMLESS: Final = HARMLESS | {
    "image_cfg_scale": Harmless(),  # of models that edit by instruction
    "include_init_images": Harmless((False,), "keep your own copy"),
    "initial_noise_multiplier": Harmless((0, 1)),
    "latent_mask": Harmless(("",), "send `mask`"),
    "resize_mode": Harmless((0, 1, 2)),  # looked at where sizes differ
}
#: Fields about a mask: without one they ask for nothing.
_MASK_HARMLESS: Final = {
    "inpaint_full_res": Harmless((False, True, 0, 1)),
    "inpaint_full_res_padding": Harmless(),
    "inpainting_fill": Harmless((0, 1), "what is under the mask is kept in mind"),
    "mask_blur": Harmless((0, 4), "blur the mask before it is sent"),
    "mask_blur_x": Harmless((0, 4), "blur the mask before it is sent"),
    "mask_blur_y": Harmless((0, 4), "blur the mask before it is sent"),
    "mask_round": Harmless((True,), "a mask is black or white"),
}
#: Settings that a request may name without changing anything.
_SETTINGS: Final = {
    "CLIP_stop_at_last_layers": Harmless((1,)),
    "samples_format": Harmless(("png",)),
    "sd_vae": Harmless(("Automatic", "None", "automatic", "")),
}
CHECKPOINT: Final = "sd_model_checkpoint"
#: What fields of ours are called there.
NAMES: Final = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "scheduler": "sampler_name",
    "initImage": "init_images",
    "maskImage": "mask",
    "mode": CHECKPOINT,
    "size": "width",
    "strength": "denoising_strength",
}
AUTOMATIC: Final = ("automatic", "")
_KARRAS: Final = " Karras"
_LORA: Final = re.compile(r"<(lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)


def read_text_to_image(data: object) -> TextToImage:
    """The body of `txt2img`; `invalid_field`."""
    return _checked(read_body(TextToImage, _without_idle_scripts(data), _TEXT_HARMLESS))


def read_image_to_image(data: object) -> tuple[ImageToImage, int]:
    """The body of `img2img`, and how a picture of another size is to be fitted; `invalid_field`."""
    data = _without_idle_scripts(data)
    masked = isinstance(data, dict) and data.get("mask") is not None
    mask = _MASK_HARMLESS if masked else dict.fromkeys(_MASK_HARMLESS, Harmless())
    body = read_body(ImageToImage, data, {**_IMAGE_HARMLESS, **mask})
    if len(body.init_images) != 1:
        raise conflict(init_images=f"takes one picture, not {len(body.init_images)}")
    resize_mode = data.get("resize_mode") if isinstance(data, dict) else 0
    return _checked(body), int(resize_mode) if isinstance(resize_mode, int | float) else 0


def params_of(body: TextToImage, schedulers: Iterable[str]) -> GenerateParams:
    """The parameters of each of its jobs, the seed of the first included; without pictures to start from."""
    return GenerateParams(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        mode=mode_of(body.override_settings),
        size=_size(body),
        num_inference_steps=body.steps,
        guidance_scale=body.cfg_scale,
        seed=None if body.seed < 0 else body.seed,
        style_lora=body.style_lora,
        scheduler=scheduler_of(body.sampler_name or body.sampler_index, body.scheduler, schedulers),
        superres=body.superres,
        superres_format=body.superres_format,
        superres_quality=body.superres_quality,
        superres_magnitude=body.superres_magnitude,
        strength=body.denoising_strength if isinstance(body, ImageToImage) else None,
    )


def mode_of(settings: Mapping[str, object]) -> str | None:
    """The mode that a checkpoint names; `name [hash]` is `name`."""
    title = settings.get(CHECKPOINT)
    return re.sub(r" \[[0-9a-f]*\]$", "", title) or None if isinstance(title, str) else None


def scheduler_of(sampler: str | None, scheduler: str | None, known: Iterable[str]) -> str | None:
    """Our scheduler for a sampler and its noise schedule; `invalid_field` for a schedule that there is not.

    An unknown sampler is passed on: whoever knows the samplers refuses it.
    """
    schedule = (scheduler or "").lower()
    if not sampler and schedule not in AUTOMATIC:
        raise conflict(scheduler="needs a sampler_name")
    if not sampler or schedule in AUTOMATIC:
        return sampler or None
    karras = sampler.endswith(_KARRAS)
    if schedule == "karras":
        wanted = sampler if karras else sampler + _KARRAS
        name = {name.lower(): name for name in known}.get(wanted.lower())
        if name is None:
            raise conflict(scheduler=f"the sampler {sampler!r} has no Karras schedule here")
        return name
    if schedule == "normal" and not karras:
        return sampler
    raise conflict(scheduler="must be one of automatic, karras, normal, and agree with the sampler")


def check_setting(name: str, value: object) -> str | None:
    """Why a setting cannot have this value; None if it has it already."""
    known = _SETTINGS.get(name)
    if known is None:
        return f"there is no such setting; there are {', '.join((CHECKPOINT, *_SETTINGS))}"
    return known.refusal(value)


def _checked(body: Body) -> Body:
    wrong = [
        FieldError((*BODY, "override_settings", name[:60]), refusal, "choice")
        for name, value in body.override_settings.items()
        if name != CHECKPOINT and (refusal := check_setting(name, value)) is not None
    ]
    if not isinstance(body.override_settings.get(CHECKPOINT, ""), str | None):
        wrong.append(FieldError((*BODY, "override_settings", CHECKPOINT), "must be a string", "type_error"))
    found = _LORA.search(f"{body.prompt} {body.negative_prompt or ''}")
    if found:
        told = f"{found.group(0)[:60]} is not read in prompts; use `style_lora`, or a mode that wears it"
        wrong.append(FieldError((*BODY, "prompt"), told, "choice"))
    if wrong:
        told = "; ".join(f"{field.loc[-1]}: {field.msg}" for field in wrong)
        raise ReverieError(ErrorCode.INVALID_FIELD, told, fields=wrong)
    return body


def _size(body: TextToImage) -> str | None:
    """The size to draw, None for the mode's own or the picture's; a side that is left out is 512."""
    if body.width is None and body.height is None:
        return None
    size = f"{body.width or 512}x{body.height or 512}"
    try:
        parse_size(size)
    except ValueError as error:
        side = "height" if "height" in str(error) else "width"
        raise conflict(**{side: str(error)}) from None
    return size


def _without_idle_scripts(data: object) -> object:
    """A body without scripts that are named only to say that they do nothing, as clients do."""
    if not isinstance(data, dict) or not isinstance(data.get("alwayson_scripts"), dict):
        return data
    busy = {
        name: script
        for name, script in data["alwayson_scripts"].items()
        if not (isinstance(script, dict) and script.get("args", []) in ([], [False]))
    }
    return {**data, "alwayson_scripts": busy}
