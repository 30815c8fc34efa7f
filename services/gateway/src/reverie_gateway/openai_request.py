"""OpenAI's images API, read: which of its fields are honoured, and the parameters of the jobs that follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from reverie_gateway.dialect import Harmless, conflict, read_body
from reverie_protocol.jobs import GenerateParams
from reverie_protocol.openai_bodies import AUTO_SIZE, ImageEdit, ImageGeneration

_MODEL_DECIDES: Final = "the mode and `steps` decide that"
_DESCRIBE: Final = "describe it in the prompt, or use `style_lora`"
#: Fields of that API that nothing is done for.
HARMLESS: Final = {
    "quality": Harmless(("auto", "standard"), _MODEL_DECIDES),
    "style": Harmless((), _DESCRIBE),
    "background": Harmless(("auto", "opaque"), "pictures are opaque"),
    "moderation": Harmless(("auto", "low"), "there is no moderation"),
    "complexity": Harmless((), _MODEL_DECIDES),
    "frame_count": Harmless((), "only still pictures are made"),
    "frame_duration_ms": Harmless((), "only still pictures are made"),
    "svg": Harmless((), "pictures are png or jpeg"),
    "user": Harmless(),  # names the caller's own user to whom it may concern; jobs belong to the token's owner
    "safety_identifier": Harmless(),
}
EDIT_HARMLESS: Final = HARMLESS | {
    "input_fidelity": Harmless(("low",), "`strength` says how close to stay"),
}
#: What fields of ours are called there.
NAMES: Final = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg",
    "initImage": "image",
    "maskImage": "mask",
    "mode": "model",
}
_INTEGERS: Final = frozenset(
    {
        "n",
        "partial_images",
        "output_compression",
        "seed",
        "steps",
        "num_inference_steps",
        "superres_magnitude",
    }
)
_NUMBERS: Final = frozenset({"cfg", "cfg_scale", "guidance_scale", "strength"})
_TRUTHS: Final = frozenset({"stream", "superres"})
#: Text fields of the forms.
FORM_FIELDS: Final = (*(set(ImageEdit.__struct_fields__) | _INTEGERS | _NUMBERS | EDIT_HARMLESS.keys()),)


def read_generation(data: object) -> ImageGeneration:
    """The body of `POST /v1/images/generations`; `invalid_field`."""
    body = read_body(ImageGeneration, data, HARMLESS)
    _require_harmony(body)
    return body


def read_edit(fields: Mapping[str, str], *, prompt_required: bool) -> ImageEdit:
    """The fields of a form; `invalid_field`."""
    data = {name: _value(name, text) for name, text in fields.items()}
    body = read_body(ImageEdit, data, EDIT_HARMLESS)
    _require_harmony(body)
    if prompt_required and not body.prompt:
        raise conflict(prompt="is required")
    return body


def params_of(body: ImageGeneration) -> GenerateParams:
    """The parameters of each of its jobs, without pictures to start from."""
    return GenerateParams(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        mode=body.model,
        size=None if body.size == AUTO_SIZE else body.size,
        num_inference_steps=body.steps,
        guidance_scale=body.cfg,
        seed=body.seed,
        style_lora=body.style_lora,
        scheduler=body.scheduler,
        superres=body.superres,
        superres_format=body.output_format,
        superres_quality=body.output_compression or 92,
        superres_magnitude=body.superres_magnitude,
        strength=body.strength if isinstance(body, ImageEdit) else None,
    )


def _require_harmony(body: ImageGeneration) -> None:
    wrong: dict[str, str] = {}
    if body.output_format == "jpeg" and not body.superres:
        wrong["output_format"] = "jpeg is made with `superres` only; other pictures are png"
    elif body.output_compression not in (None, 100) and body.output_format != "jpeg":
        wrong["output_compression"] = "only jpeg is compressed by a number"
    if body.partial_images and not body.stream:
        wrong["partial_images"] = "needs `stream`"
    if body.stream and body.response_format == "url":
        wrong["response_format"] = "a stream holds its pictures; leave it out"
    if wrong:
        raise conflict(**wrong)


def _value(name: str, text: str) -> object:
    """The value that a form's text stands for; what it cannot be stays text, to be refused."""
    try:
        if name in _INTEGERS:
            return int(text) if len(text) < 12 else text
        if name in _NUMBERS:
            return float(text) if len(text) < 32 else text
        if name == "style_lora":
            return json.loads(text)
    except (ValueError, RecursionError):
        return text
    return {"true": True, "false": False}.get(text.lower(), text) if name in _TRUTHS else text
