"""What a server sends on `/v1/ws`.  Every pushed job event carries `seq` (the bucket's revision) and `jobSeq`."""

from __future__ import annotations

import msgspec

from reverie_protocol.errors import FieldError
from reverie_protocol.jobs import (
    JobError,
    JobMeta,
    JobState,
    JobType,
    Lane,
    Output,
    Phase,
    Seconds,
    Vram,
)


class ServerMessage(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename="camel",
    tag_field="type",
    omit_defaults=True,
):
    """Base of everything a server sends; the tag is the message's `type`."""


class Pong(ServerMessage, tag="pong"):
    """Answer to `ping`, echoing its `id`."""

    id: str | int | None = None


class Error(ServerMessage, tag="error"):
    """A client frame was refused.  `id` echoes the client's; the socket stays open."""

    id: str | int | None = None
    code: str
    message: str
    retryable: bool
    fields: tuple[FieldError, ...] = ()


class JobAck(ServerMessage, tag="job:ack"):
    """The job's record is durable.  `existing` marks the answer to a repeated submit."""

    id: str | int | None = None
    job_id: str
    state: JobState
    priority: Lane
    seq: int
    existing: bool = False


class JobStateChanged(ServerMessage, tag="job:state"):
    """A job entered `queued` or `running`, or was asked to stop; terminal states have messages of their own."""

    job_id: str
    job_type: JobType
    state: JobState
    priority: Lane
    attempt: int
    cancelling: bool = False
    worker: str | None = None
    seq: int
    job_seq: int


class JobProgress(ServerMessage, tag="job:progress"):
    """Latest progress; `progress` is the whole job's fraction 0..1."""

    job_id: str
    attempt: int
    phase: Phase
    step: int
    steps: int
    progress: float
    eta_seconds: float | None = None
    node: str = ""
    seq: int


class JobComplete(ServerMessage, tag="job:complete"):
    """The job's outputs are stored and its record is final."""

    job_id: str
    outputs: tuple[Output, ...]
    meta: JobMeta | None
    seq: int
    job_seq: int


class JobFailed(ServerMessage, tag="job:error"):
    """The job ended without completing; `state` is `failed`, or `cancelled` with code `cancelled`."""

    job_id: str
    state: JobState
    code: str
    message: str
    retryable: bool
    outputs: tuple[Output, ...] = ()
    partial: bool = False
    error: JobError | None = None
    seq: int
    job_seq: int


class JobCancelOk(ServerMessage, tag="job:cancel:ok"):
    """`job:cancel` is durable: a queued job is cancelled, a running one stops at its next step."""

    id: str | int | None = None
    job_id: str
    state: JobState


class JobPreviewOk(ServerMessage, tag="job:preview:ok"):
    """Whether this socket now gets the job's binary preview frames."""

    id: str | int | None = None
    job_id: str
    enabled: bool


class StorageHealth(msgspec.Struct, frozen=True, rename="camel"):
    """Whether outputs can be stored and read."""

    ok: bool
    provider: str


class QueueRow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One waiting or running job; `jobId` is left out where it is somebody else's."""

    type: JobType
    state: JobState
    priority: Lane
    position: int
    enqueued_at: Seconds
    job_id: str | None = None
    eta_seconds: float | None = None


class QueueState(msgspec.Struct, frozen=True, rename="camel"):
    """Mirror of the queue: counts and rows, in the order they will be claimed."""

    pending: int
    running: int
    depth: int
    paused: bool = False
    jobs: tuple[QueueRow, ...] = ()


class SystemStatus(ServerMessage, tag="system:status", omit_defaults=False):
    """State of the platform, on connect and on change.  `mode` is the mode that is loaded."""

    mode: str | None
    vram: Vram
    storage: StorageHealth
    queue_state: QueueState
    workers: int = 0
    version: str = ""
