"""The job record and what it is made of: the one shared state of Reverie.

A record is one key of the KV bucket `jobs`; each state transition is one compare-and-set of it.  Names on the
wire are camelCase, but the parameters of a job keep the snake_case names of the HTTP API that frontends know.
Times are seconds since the epoch, sizes are pixels.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from reverie_protocol.errors import ErrorCodeText
from reverie_protocol.quantities import (
    Attempt,
    Bytes,
    Count,
    Duration,
    Fraction,
    Gigabytes,
    JobSeq,
    Percent,
    Pixels,
    StepCount,
    StepIndex,
)
from reverie_protocol.sizes import MAX_SIDE_PX, Size

MAX_PROMPT_CHARS = 10_000
MAX_SEED = 2**32 - 1
MAX_STEPS = 150
MAX_STYLE_LEVEL = 8
MAX_VARIATIONS = 16

Seconds = Annotated[float, Meta(description="seconds since the epoch, UTC")]
Prompt = Annotated[str, Meta(max_length=MAX_PROMPT_CHARS, description="text, in characters")]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED, description="seed of the noise")]
Steps = Annotated[int, Meta(ge=1, le=MAX_STEPS, description="denoising steps")]
Guidance = Annotated[float, Meta(ge=0, le=20, description="guidance scale; 1 is none")]
Quality = Annotated[int, Meta(ge=1, le=100, description="JPEG quality")]
Passes = Annotated[int, Meta(ge=1, le=3, description="super-resolution passes")]
JobId = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="1 to 64 letters, digits, `_` or `-`"),
]
FileRef = Annotated[
    str,
    Meta(
        pattern=r"^(fileRef:)?[A-Za-z0-9_-]{1,100}(\.[a-z0-9]{1,8})?$",
        description="the reference that an upload returned, or the key of a stored picture, with or without "
        "`fileRef:` before it",
        extra={"strip_prefix": "fileRef:"},
    ),
]
Strength = Annotated[
    float, Meta(gt=0, le=1, description="how far from `initImage` the picture may go; 1 is all the way")
]
PictureFormat = Literal["png", "jpeg"]
ModeName = Annotated[str, Meta(min_length=1, max_length=200)]


class JobType(StrEnum):
    """What kind of work a job is; decides which service claims it."""

    GENERATE = "generate"
    SR = "sr"
    COMFY = "comfy"
    SWITCH = "switch"


class JobState(StrEnum):
    """Where a job is in its life.  The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True if no transition may follow."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class Lane(IntEnum):
    """Priority lanes; a lower number goes first."""

    URGENT = 0
    NORMAL = 1
    BATCH = 2
    BACKGROUND = 3


class StyleLora(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A style by name and how strongly it is applied; level 0 is off."""

    style: str | None = None
    level: Annotated[int, Meta(ge=0, le=MAX_STYLE_LEVEL, description="strength; 0 is off")] = 0


class Variation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A move of the starting noise towards that of another seed: 0 stays, 1 arrives."""

    seed: Seed
    weight: Annotated[float, Meta(ge=0, le=1, description="how far towards that seed's noise")]


class GenerateParams(msgspec.Struct, frozen=True, tag_field="kind", tag="generate"):
    """A picture from text.  A field left at None takes the default of the mode that runs the job.

    `variations` move the starting noise of `seed` by spherical interpolation, one after the other.

    With `initImage` it starts from that picture, drawn at `size` or else at the picture's own size; with
    `maskImage` beside it only what is white there is drawn anew.  `strength` is the part of the steps that is
    really taken, 0.8 unless it is given, with a mask 1.
    """

    prompt: Prompt
    negative_prompt: Prompt | None = None
    mode: ModeName | None = None
    size: Size | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    seed: Seed | None = None
    style_lora: StyleLora = StyleLora()
    scheduler: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    superres: bool = False
    superres_format: PictureFormat = "png"
    superres_quality: Quality = 92
    superres_magnitude: Passes = 2
    initImage: Annotated[FileRef | None, Meta(extra={"aliases": ("init_image",)})] = None
    maskImage: Annotated[FileRef | None, Meta(extra={"aliases": ("mask_image",)})] = None
    strength: Strength | None = None
    variations: Annotated[tuple[Variation, ...], Meta(max_length=MAX_VARIATIONS)] = ()


class SuperResolutionParams(msgspec.Struct, frozen=True, tag_field="kind", tag="sr"):
    """Super-resolution of an uploaded picture."""

    fileRef: FileRef
    magnitude: Passes = 2
    out_format: PictureFormat = "png"
    quality: Quality = 92


class ComfyParams(msgspec.Struct, frozen=True, tag_field="kind", tag="comfy"):
    """A ComfyUI workflow: one of the named ones with its parameters, or (by right) a graph in API format.

    `inputImage` is what the workflow's first image input takes; others stand in `params` as `fileRef:...`.
    `preview` chooses how ComfyUI makes previews, where its version can; left out, the bridge's setting decides.
    """

    workflowId: WorkflowName | None = None
    workflow: dict[str, object] | None = None
    params: dict[str, object] = {}
    inputImage: FileRef | None = None
    preview: ComfyPreview | None = None


WorkflowName = Annotated[str, Meta(min_length=1, max_length=200)]
ComfyPreview = Literal["auto", "latent2rgb", "taesd", "none"]


class SwitchParams(msgspec.Struct, frozen=True, tag_field="kind", tag="switch"):
    """Make a mode, loaded, that of jobs that name none; on one worker, by its name."""

    mode: ModeName
    worker: str


#: What clients submit, and what a job of the platform can be.
SubmittedParams = GenerateParams | SuperResolutionParams | ComfyParams
JobParams = SubmittedParams | SwitchParams


class Output(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One stored result.  `url` is relative to the gateway; `partial` marks what an unfinished job left.

    Of a ComfyUI job also where it comes from: the node, the kind it names it (`images`, `gifs`, `audio`, `text`),
    and the file's name, folder and type there.
    """

    url: str
    key: str
    content_type: str = "image/png"
    width: Pixels = 0
    height: Pixels = 0
    bytes: Bytes = 0
    partial: bool = False
    node: str = ""
    kind: str = ""
    filename: str = ""
    subfolder: str = ""
    folder_type: str = ""


class ComfyNodeError(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is wrong with one node of a workflow; `type` in ComfyUI's words, `field` the input that is meant."""

    node: str
    type: str
    message: str
    class_type: str = ""
    title: str = ""
    field: str = ""
    details: str = ""


class JobError(msgspec.Struct, frozen=True, rename="camel"):
    """Why a job did not complete; `code` is an ErrorCode, `message` one sentence for a person."""

    code: ErrorCodeText
    message: str
    retryable: bool = False
    node_errors: tuple[ComfyNodeError, ...] | msgspec.UnsetType = msgspec.UNSET


class ComfyNodeState(StrEnum):
    """Where a node of a workflow is."""

    RUNNING = "running"
    CACHED = "cached"
    FINISHED = "finished"
    FAILED = "failed"


class ComfyNode(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One node of a workflow that was seen: its id, title and class, and how far it is.

    What node expansion makes is folded into the node that a person sees.
    """

    id: str
    title: str = ""
    class_type: str = ""
    state: ComfyNodeState = ComfyNodeState.RUNNING
    progress: Fraction = 0.0
    seconds: Duration = 0.0


class ComfyRun(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A job inside ComfyUI: on which instance, under which ids, and its nodes in the order they were seen.

    `current` are the ids of the nodes that run now, the latest first.
    """

    instance: str
    prompt_id: str = ""
    client_id: str = ""
    nodes_total: Count = 0
    nodes_seen: Count = 0
    current: tuple[str, ...] = ()
    nodes: tuple[ComfyNode, ...] = ()


class JobMeta(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a finished job was really made with (`seed`, `backend`, `sr` are always there)."""

    seed: Annotated[int, Meta(description="seed of the noise, given or drawn")]
    backend: str
    sr: bool = msgspec.field(default_factory=lambda: False)
    mode: str = ""
    model: str = ""
    scheduler: str = ""
    steps: StepCount = 0
    guidance: Annotated[float, Meta(description="guidance scale")] = 0.0
    size: str = ""
    native_size: str = ""
    strength: Annotated[float, Meta(description="share of the steps taken from `initImage`; 0 without")] = 0.0
    sr_model: str = ""
    sr_passes: Count = 0
    sr_scale_per_pass: Count = 0
    sr_format: str = ""
    run_seconds: Duration = 0.0
    workflow: str = ""
    comfy: ComfyRun | None = None


class Job(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The record of one job.

    `op` names the operation that wrote this revision, so that a writer whose reply was lost can tell whether its
    write was applied.  `job_seq` counts the record's revisions from 1.  `worker` is the key of the worker that
    runs it, `attempt` counts claims.  `lost_workers` are the keys of the workers that were lost while they ran it
    and were not heard of since, `crashes` how many they are.  `losses` counts how often the server that a worker
    works with (a ComfyUI) ended under it.  `cancel` asks a running job to stop.
    Inside a lane jobs go by `position`, lowest first; it starts as the time of submission.
    `session` names the dream session whose draft it is: nobody is told of such jobs, and they are forgotten as soon
    as they were looked at.
    """

    id: JobId
    owner: str
    type: JobType
    state: JobState
    priority: Lane = Lane.NORMAL
    position: Annotated[float, Meta(description="order within its lane, lowest first")] = 0.0
    attempt: Attempt = 0
    crashes: Count = 0
    lost_workers: tuple[str, ...] = ()
    losses: Count = 0
    worker: str | None = None
    op: str = ""
    job_seq: JobSeq = 1
    cancel: bool = False
    not_before: Seconds | None = None
    start_by: Seconds | None = None
    finish_by: Seconds | None = None
    idempotency_key: str | None = None
    retry_of: str | None = None
    session: str | None = None
    request_hash: str = ""
    params: JobParams
    outputs: tuple[Output, ...] = ()
    partial: bool = False
    error: JobError | None = None
    meta: JobMeta | None = None
    created_at: Seconds
    enqueued_at: Seconds
    started_at: Seconds | None = None
    finished_at: Seconds | None = None
    updated_at: Seconds


class Phase(StrEnum):
    """What a running job is doing."""

    LOADING = "loading"
    ENCODING = "encoding"
    DENOISING = "denoising"
    DECODING = "decoding"
    UPSCALING = "upscaling"
    WAITING = "waiting"
    EXECUTING = "executing"
    STORING = "storing"


class Progress(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Latest progress of one running job, on `job.progress.<id>`; repeated at least once a second.

    `progress` is the whole job's fraction 0..1 and never falls within an attempt; `step` of `steps` counts
    denoising steps, in a job of type `sr` the tiles of all its passes, in a ComfyUI job those of the node that
    runs.  `node` is that node's title (or class), `comfy` tells of all of them.
    """

    job_id: str
    attempt: Attempt
    phase: Phase
    step: StepIndex = 0
    steps: StepCount = 0
    progress: Fraction = 0.0
    step_seconds: Duration = 0.0
    node: str = ""
    comfy: ComfyRun | None = None


class ModeLora(msgspec.Struct, frozen=True, rename="camel"):
    """A LoRA that a mode always wears; `path` as the operator wrote it."""

    path: str
    strength: Annotated[float, Meta(description="weight; 1 is as it was trained")]
    adapter_name: str


class ResidentModel(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A model in a worker's memory; `model` as the operator wrote it, `modes` those that run on it."""

    model: str
    modes: tuple[str, ...] = ()
    gb: Annotated[Gigabytes, Meta(description="its weights")] = 0.0
    loras: tuple[str, ...] = ()


class ModeInfo(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A mode that a worker can serve: a model with its defaults.

    `loaded` says that it runs without loading anything first; what only loading tells (`family`) is empty before.
    """

    model: str
    loaded: bool = False
    loras: tuple[ModeLora, ...] = ()
    pinned: bool = False
    family: str = ""
    native_size: Annotated[str, Meta(description="what the network draws; empty until it is known")] = ""
    default_size: str = "512x512"
    default_steps: StepCount = 4
    default_guidance: Annotated[float, Meta(description="guidance scale")] = 1.0
    scheduler: str = ""
    styles: tuple[str, ...] = ()
    max_side: Pixels = MAX_SIDE_PX
    init_image: Annotated[bool, Meta(description="whether it takes `initImage`")] = False
    mask_image: Annotated[bool, Meta(description="whether it takes `maskImage`")] = False


class Vram(msgspec.Struct, frozen=True):
    """Accelerator memory as the HTTP API has it (GB); `device` is "No GPU" with zeros where there is none."""

    device: str = "No GPU"
    total_gb: Gigabytes = 0.0
    allocated_gb: Gigabytes = 0.0
    used_gb: Gigabytes = 0.0
    available_gb: Gigabytes = 0.0
    usage_percent: Percent = 0.0


class WorkerState(StrEnum):
    """What a worker says of itself."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    BROKEN = "broken"


class Worker(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Heartbeat record of one worker process, key `<name>.<incarnation>` of the KV bucket `workers`."""

    name: str
    incarnation: str
    service: str
    state: WorkerState
    node: Annotated[str, Meta(description="the machine, as its monitor calls it; empty where not told")] = ""
    device: str = "cpu"
    backend: str = ""
    job_types: tuple[JobType, ...] = ()
    modes: dict[str, ModeInfo] = {}
    unavailable: Annotated[dict[str, str], Meta(description="why a mode cannot be served, by its name")] = {}
    models: tuple[ResidentModel, ...] = ()
    mode: Annotated[str | None, Meta(description="that of jobs that name none")] = None
    default_mode: Annotated[str | None, Meta(description="the mode after a first start")] = None
    loading: Annotated[str, Meta(description="the mode whose model is being loaded; empty if none is")] = ""
    load_progress: Annotated[Fraction, Meta(description="how much of it is in place")] = 0.0
    schedulers: tuple[str, ...] = ()
    workflows: Annotated[tuple[str, ...], Meta(description="ComfyUI workflows that it can run")] = ()
    tags: Annotated[tuple[str, ...], Meta(description="what its operator says of it")] = ()
    superres: bool = False
    superres_scale: Annotated[Count, Meta(description="what a pass multiplies a side by")] = 2
    slots: Count = 1
    running: tuple[str, ...] = ()
    vram: Vram = Vram()
    detail: str = ""
    started_at: Seconds = 0.0
    beat_at: Seconds = 0.0
