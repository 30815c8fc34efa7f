"""Bodies of OpenAI's images API, as far as they are honoured, and what answers them.

Names are those of that API; `seed`, `steps`, `cfg`, `negative_prompt`, `scheduler`, `style_lora` and the `superres`
fields are ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import (
    Guidance,
    JobId,
    ModeName,
    Passes,
    PictureFormat,
    Prompt,
    Quality,
    Seed,
    Steps,
    Strength,
    StyleLora,
)
from reverie_protocol.sizes import parse_size

MAX_PICTURES = 10
AUTO_SIZE = "auto"


def check_size(text: str) -> None:
    """ValueError if `text` is neither `auto` nor a size that is drawn."""
    if text != AUTO_SIZE:
        parse_size(text)


PictureCount = Annotated[int, Meta(ge=1, le=MAX_PICTURES, description="pictures, each a job of its own")]
WantedSize = Annotated[
    str,
    Meta(
        pattern=r"^(auto|[0-9]+x[0-9]+)$",
        max_length=9,
        description="WIDTHxHEIGHT in pixels, each side 64..4096 and a multiple of 8; `auto` is the mode's own",
        examples=["512x512"],
        extra={"check": check_size},
    ),
]
PartialImages = Annotated[int, Meta(ge=0, le=3, description="pictures of the way, streamed")]
Epoch = Annotated[int, Meta(description="seconds since the epoch")]


class ImageGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /v1/images/generations`.  `model` names a mode; the n-th picture has the seed `seed` + n.

    With `superres` the picture can be had as `jpeg`, `output_compression` then is its quality.
    """

    prompt: Prompt
    model: ModeName | None = None
    n: PictureCount = 1
    size: WantedSize | None = None
    response_format: Literal["b64_json", "url"] = "b64_json"
    stream: bool = False
    partial_images: PartialImages = 0
    output_format: PictureFormat = "png"
    output_compression: Quality | None = None
    negative_prompt: Prompt | None = None
    seed: Seed | None = None
    steps: Annotated[Steps | None, Meta(extra={"aliases": ("num_inference_steps",)})] = None
    cfg: Annotated[Guidance | None, Meta(extra={"aliases": ("guidance_scale", "cfg_scale")})] = None
    scheduler: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    style_lora: StyleLora = StyleLora()
    superres: bool = False
    superres_magnitude: Passes = 2


class ImageEdit(ImageGeneration, frozen=True, kw_only=True):
    """Fields of the form of `POST /v1/images/edits` and `/variations`, beside `image` and `mask`.

    `strength` is how far from `image` the result may go.
    """

    prompt: Prompt = ""
    strength: Strength | None = None


class ImageDatum(msgspec.Struct, frozen=True, omit_defaults=True):
    """One picture: base64 or an address."""

    b64_json: str | None = None
    url: str | None = None


class ImagesMeta(msgspec.Struct, frozen=True):
    """What made the pictures, in their order; each job is to be found at `/v1/jobs/{id}`."""

    job_ids: tuple[JobId, ...]
    seeds: tuple[int, ...]
    mode: str
    backend: str
    superres: bool


class ImagesAnswer(msgspec.Struct, frozen=True):
    """`POST /v1/images/generations`, `/edits`, `/variations`."""

    created: Epoch
    data: tuple[ImageDatum, ...]
    output_format: str
    size: str
    background: Literal["opaque"]
    meta: ImagesMeta


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A mode as OpenAI's API lists models."""

    id: str
    object: Literal["model"] = msgspec.field(default_factory=lambda: "model")
    created: Epoch
    owned_by: str = "reverie"


class ModelCards(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/models`: the modes that can be used now."""

    object: Literal["list"] = msgspec.field(default_factory=lambda: "list")
    data: tuple[ModelCard, ...]


class _ImageEvent(msgspec.Struct, frozen=True, kw_only=True):
    b64_json: str
    created_at: Epoch
    size: str
    output_format: str
    quality: Literal["auto"] = msgspec.field(default_factory=lambda: "auto")
    background: Literal["opaque"] = msgspec.field(default_factory=lambda: "opaque")
    job_id: JobId


class ImagePartial(
    _ImageEvent, frozen=True, kw_only=True, tag_field="type", tag="image_generation.partial_image"
):
    """Event of a stream: how a picture looks on the way; `partial_image_index` counts those of its job from 0."""

    partial_image_index: int


class EditPartial(_ImageEvent, frozen=True, kw_only=True, tag_field="type", tag="image_edit.partial_image"):
    """The same of an edit."""

    partial_image_index: int


class TokenDetails(msgspec.Struct, frozen=True):
    """Nothing here is counted in tokens."""

    image_tokens: int = 0
    text_tokens: int = 0


class Usage(msgspec.Struct, frozen=True):
    """Clients of that API read it; nothing here is counted in tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()


class ImageCompleted(
    _ImageEvent, frozen=True, kw_only=True, tag_field="type", tag="image_generation.completed"
):
    """Event of a stream: a picture is done."""

    seed: int
    usage: Usage = Usage()


class EditCompleted(_ImageEvent, frozen=True, kw_only=True, tag_field="type", tag="image_edit.completed"):
    """The same of an edit."""

    seed: int
    usage: Usage = Usage()


OPENAI_BODIES: tuple[type[Any], ...] = (
    ImageGeneration,
    ImagesAnswer,
    ModelCard,
    ModelCards,
    ImagePartial,
    ImageCompleted,
)
