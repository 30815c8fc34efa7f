"""Bodies of A1111's API under `/sdapi/v1`, as far as they are honoured, and what answers them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import (
    MAX_SEED,
    Guidance,
    Passes,
    PictureFormat,
    Prompt,
    Quality,
    Steps,
    StyleLora,
)
from reverie_protocol.quantities import Fraction
from reverie_protocol.sizes import MAX_SIDE_PX, MIN_SIDE_PX

MAX_BATCH = 8
#: Of the `force_task_id`s that a client may choose.
TASK_ID_PATTERN = r"^[\x21-\x7e]{1,100}$"

BatchCount = Annotated[int, Meta(ge=1, le=MAX_BATCH, description="pictures, each a job of its own")]
Side = Annotated[
    int, Meta(ge=MIN_SIDE_PX, le=MAX_SIDE_PX, multiple_of=8, description="pixels, a multiple of 8")
]
DrawnSeed = Annotated[
    int,
    Meta(ge=-1, le=MAX_SEED, description="seed of the first picture, the next has one more; -1 is random"),
]
TaskId = Annotated[
    str, Meta(pattern=TASK_ID_PATTERN, description="your name for the request, for its progress")
]
Encoded = Annotated[str, Meta(description="a picture in base64, with or without `data:…;base64,` before it")]
SamplerName = Annotated[str, Meta(max_length=100, description="a sampler of `/sdapi/v1/samplers`")]


class TextToImage(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /sdapi/v1/txt2img`; the `superres` fields and `style_lora` are ours.

    `batch_size` x `n_iter` pictures are made.  Without `steps`, `cfg_scale`, `width`, `height` or a sampler the
    mode's own defaults hold.  `override_settings` may hold `sd_model_checkpoint`, a mode for this request alone.
    """

    prompt: Prompt = ""
    negative_prompt: Prompt | None = None
    steps: Steps | None = None
    cfg_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    seed: DrawnSeed = -1
    sampler_name: SamplerName | None = None
    sampler_index: SamplerName | None = None
    scheduler: SamplerName | None = None
    batch_size: BatchCount = 1
    n_iter: BatchCount = 1
    override_settings: dict[str, object] = {}
    send_images: bool = True
    force_task_id: TaskId | None = None
    style_lora: StyleLora = StyleLora()
    superres: bool = False
    superres_magnitude: Passes = 2
    superres_format: PictureFormat = "png"
    superres_quality: Quality = 92


class ImageToImage(TextToImage, frozen=True, kw_only=True):
    """Body of `POST /sdapi/v1/img2img`: one picture to start from, and a mask whose white parts are drawn anew."""

    init_images: Annotated[tuple[Encoded, ...], Meta(max_length=16, description="one picture")]
    mask: Encoded | None = None
    denoising_strength: Annotated[
        float, Meta(gt=0, le=1, description="how far from the picture it may go")
    ] = 0.75
    inpainting_mask_invert: Annotated[int, Meta(ge=0, le=1, description="1: black is drawn anew")] = 0


class SingleEnlargement(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /sdapi/v1/extra-single-image`: super-resolution."""

    image: Encoded
    upscaling_resize: Annotated[float, Meta(description="what one to three passes make: 2, 4 or 8")] = 2
    upscaler_1: SamplerName = "Reverie"


class ProgressQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /internal/progress`: how the request with this `force_task_id` goes."""

    id_task: TaskId
    live_preview: bool = True


class ProgressState(msgspec.Struct, frozen=True, kw_only=True):
    """Of which picture the progress is; `job_no` of `job_count`, `sampling_step` of `sampling_steps`."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /sdapi/v1/progress`: zeros where nothing of the caller goes on; `eta_relative` is 0 where not known."""

    progress: Fraction = 0.0
    eta_relative: float = 0.0
    state: ProgressState = ProgressState()
    current_image: str | None = None
    textinfo: str | None = None
    current_task: str | None = None


class TaskProgress(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /internal/progress`."""

    active: bool
    queued: bool
    completed: bool
    progress: Fraction | None = None
    eta: float | None = None
    live_preview: str | None = None
    id_live_preview: int | None = None
    textinfo: str | None = None


class PicturesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /sdapi/v1/txt2img` and `/img2img`; `info` is JSON as text."""

    images: tuple[str, ...]
    parameters: dict[str, object]
    info: str


class EnlargementAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /sdapi/v1/extra-single-image`."""

    html_info: str
    image: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /sdapi/v1/options`: a mode to switch to; other settings may be there as they are."""

    sd_model_checkpoint: str | None = None


class CheckpointCard(msgspec.Struct, frozen=True, kw_only=True):
    """A mode as A1111 lists checkpoints."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class SamplerCard(msgspec.Struct, frozen=True, kw_only=True):
    """A sampler that some worker has."""

    name: str
    aliases: tuple[str, ...] = ()
    options: dict[str, str] = {}


class UpscalerCard(msgspec.Struct, frozen=True, kw_only=True):
    """A way to enlarge pictures."""

    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float


class LoraCard(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA that a mode wears."""

    name: str
    alias: str
    path: str
    metadata: dict[str, object] = {}


SDAPI_BODIES: tuple[type[Any], ...] = (
    TextToImage,
    ImageToImage,
    SingleEnlargement,
    ProgressQuestion,
    ProgressAnswer,
    TaskProgress,
    PicturesAnswer,
    EnlargementAnswer,
    Options,
    CheckpointCard,
    SamplerCard,
    UpscalerCard,
    LoraCard,
)
