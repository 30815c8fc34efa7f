"""What a server sends on `/v1/ws`.  Every pushed job event carries `seq` (the bucket's revision) and `jobSeq`.

"Row n" in a docstring is the row of the channel map that asks for the message.  A client ignores fields and types
that it does not know: both are added without notice.
"""

from __future__ import annotations

import msgspec

from reverie_protocol.dreams import (
    DreamCandidate,
    DreamGuidance,
    DreamState,
    DreamStats,
    SessionId,
)
from reverie_protocol.errors import ErrorCodeText, FieldError
from reverie_protocol.instances import ComfyHealth
from reverie_protocol.jobs import (
    ComfyNodeError,
    ComfyRun,
    JobError,
    JobMeta,
    JobState,
    JobType,
    Lane,
    Output,
    Phase,
    Seconds,
    Seed,
    Vram,
    WorkerState,
)
from reverie_protocol.nodes import NodeStatus
from reverie_protocol.quantities import (
    Attempt,
    Count,
    Duration,
    Epoch,
    Fraction,
    JobSeq,
    Seq,
    StepCount,
    StepIndex,
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


class Pong(ServerMessage, frozen=True, kw_only=True, tag="pong"):
    """Row 25: answer to `ping`, echoing its `id`."""

    id: str | int | None = None


class Error(ServerMessage, frozen=True, kw_only=True, tag="error"):
    """Connection: a client frame was refused.  `id` echoes the client's; the socket stays open.

    `code` is one of the error codes; with `invalid_field` each wrong field stands in `fields`, with
    `workflow_invalid` each wrong node of a workflow in `nodeErrors` too.
    """

    id: str | int | None = None
    code: ErrorCodeText
    message: str
    retryable: bool
    fields: tuple[FieldError, ...] = ()
    node_errors: tuple[ComfyNodeError, ...] = ()


class Authenticated(ServerMessage, frozen=True, kw_only=True, tag="AUTHENTICATED"):
    """Connection: answer to `AUTHENTICATE`; whose jobs this socket now sees, and until when."""

    id: str | int | None = None
    user: str
    admin: bool = False
    expires_at: Seconds | None = None


class HelloOk(ServerMessage, frozen=True, kw_only=True, tag="hello:ok"):
    """Connection: answer to `hello`, after what a `cursor` asked for; `seq` and `epoch` are a cursor."""

    id: str | int | None = None
    previews: bool
    seq: Seq
    epoch: Epoch = ""


class Resumed(ServerMessage, frozen=True, kw_only=True, tag="resumed"):
    """Connection: answer to `resume`, before the missed events.

    `recovered` says that every state transition after `from` follows; otherwise the log no longer reaches back
    that far and the client starts from the current state, which follows instead.
    """

    id: str | int | None = None
    recovered: bool
    from_: Seq = msgspec.field(name="from")
    seq: Seq
    epoch: Epoch = ""


class JobAck(ServerMessage, frozen=True, kw_only=True, tag="job:ack"):
    """Rows 1, 2 and 4: the job's record is durable.  `existing` marks the answer to a repeated submit."""

    id: str | int | None = None
    job_id: str
    state: JobState
    priority: Lane
    seq: Seq
    existing: bool = False


class JobStateChanged(ServerMessage, frozen=True, kw_only=True, tag="job:state"):
    """Rows 1 and 5: a job entered `queued` or `running`, or was asked to stop.

    Terminal states have messages of their own: `job:complete` and `job:error`.
    """

    job_id: str
    job_type: JobType
    state: JobState
    priority: Lane
    attempt: Attempt
    cancelling: bool = False
    worker: str | None = None
    seq: Seq
    job_seq: JobSeq


class JobProgress(ServerMessage, frozen=True, kw_only=True, tag="job:progress"):
    """Rows 1, 2 and 5: latest progress; `progress` is the whole job's fraction 0..1.

    `node` names the ComfyUI node that runs, `comfy` tells of all its nodes.  An `etaSeconds` that would be a guess
    is left out.
    """

    job_id: str
    attempt: Attempt
    phase: Phase
    step: StepIndex
    steps: StepCount
    progress: Fraction
    eta_seconds: Duration | None = None
    node: str = ""
    comfy: ComfyRun | None = None
    seq: Seq


class JobComplete(ServerMessage, frozen=True, kw_only=True, tag="job:complete"):
    """Rows 1, 2 and 5: the job's outputs are stored and its record is final."""

    job_id: str
    outputs: tuple[Output, ...]
    meta: JobMeta | None
    seq: Seq
    job_seq: JobSeq


class JobFailed(ServerMessage, frozen=True, kw_only=True, tag="job:error"):
    """Row 5: the job ended without completing; `state` is `failed`, or `cancelled` with code `cancelled`."""

    job_id: str
    state: JobState
    code: ErrorCodeText
    message: str
    retryable: bool
    outputs: tuple[Output, ...] = ()
    partial: bool = False
    error: JobError | None = None
    seq: Seq
    job_seq: JobSeq


class JobCancelOk(ServerMessage, frozen=True, kw_only=True, tag="job:cancel:ok"):
    """Row 6: `job:cancel` is durable: a queued job is cancelled, a running one stops at its next step."""

    id: str | int | None = None
    job_id: str
    state: JobState


class JobPriorityOk(ServerMessage, frozen=True, kw_only=True, tag="job:priority:ok"):
    """Row 31: the job's new lane is durable; `position` is its place in the queue, 0 is next."""

    id: str | int | None = None
    job_id: str
    priority: Lane
    position: Count | None = None


class JobPreviewOk(ServerMessage, frozen=True, kw_only=True, tag="job:preview:ok"):
    """Beyond the map: whether this socket now gets the job's binary preview frames."""

    id: str | int | None = None
    job_id: str
    enabled: bool


class DreamStarted(ServerMessage, frozen=True, kw_only=True, tag="dream:started"):
    """Row 7: the session's record is durable and it begins."""

    id: str | int | None = None
    session_id: SessionId


class DreamStopped(ServerMessage, frozen=True, kw_only=True, tag="dream:stopped"):
    """Row 8: no more candidates are made; `stats` is the session's total."""

    id: str | int | None = None
    session_id: SessionId | None
    stats: DreamStats


class DreamStatus(ServerMessage, frozen=True, kw_only=True, tag="dream:status"):
    """Rows 9 and 12: how the session does, about every 2 seconds while it dreams and once when it ends."""

    session_id: SessionId
    state: DreamState
    stats: DreamStats


class DreamTopResult(ServerMessage, frozen=True, kw_only=True, tag="dream:top:result"):
    """Row 10: the best candidates, best first."""

    id: str | int | None = None
    session_id: SessionId | None
    candidates: tuple[DreamCandidate, ...]
    total: Count = 0


class DreamRecentResult(ServerMessage, frozen=True, kw_only=True, tag="dream:recent:result"):
    """Row 11: the latest candidates, latest first."""

    id: str | int | None = None
    session_id: SessionId | None
    candidates: tuple[DreamCandidate, ...]
    total: Count = 0


class DreamGuideOk(ServerMessage, frozen=True, kw_only=True, tag="dream:guide:ok"):
    """Row 13: the steering that is in force from the next candidate on."""

    id: str | int | None = None
    session_id: SessionId
    params: DreamGuidance


class DreamCandidateFound(ServerMessage, frozen=True, kw_only=True, tag="dream:candidate"):
    """Row 14: a promising candidate, as it is found; `candidateId` is what `dream:guide` calls it."""

    session_id: SessionId
    candidate_id: Count = 0
    seed: Seed
    score: Fraction
    thumbnail_url: str | None = None
    url: str | None = None
    prompt: str = ""
    timestamp: Seconds = 0.0
    rendered: bool = False
    scores: dict[str, float] = {}
    parents: tuple[int, ...] = ()
    mutation: str = ""
    strategy: str = ""
    params: dict[str, object] = {}


class StoragePutOk(ServerMessage, frozen=True, kw_only=True, tag="storage:put:ok"):
    """Row 22: the text is stored under `key`; `url` is relative to the gateway."""

    id: str | int | None = None
    key: str
    url: str


class StorageHealth(msgspec.Struct, frozen=True, rename="camel"):
    """Whether outputs can be stored and read."""

    ok: bool
    provider: str


class QueueRow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One waiting or running job; `jobId` is left out where it is somebody else's."""

    type: JobType
    state: JobState
    priority: Lane
    position: Count
    enqueued_at: Seconds
    job_id: str | None = None
    eta_seconds: Duration | None = None


class QueueState(msgspec.Struct, frozen=True, rename="camel"):
    """Mirror of the queue: counts and rows, in the order they will be claimed."""

    pending: Count
    running: Count
    depth: Count
    paused: bool = False
    jobs: tuple[QueueRow, ...] = ()


class QueueMirror(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The queue on `queue.state`: what `queue:state` says, for services; no row has a `jobId`.

    Each gateway tells what it sees: of two messages of one `epoch` the one with the higher `seq` (the revision of
    the bucket `jobs` that it shows) is the later.
    """

    pending: Count
    running: Count
    depth: Count
    paused: bool
    jobs: tuple[QueueRow, ...]
    seq: Seq
    epoch: Epoch


class QueueStateChanged(ServerMessage, frozen=True, kw_only=True, omit_defaults=False, tag="queue:state"):
    """Row 34: mirror of the queue, on change; `jobs` in the order they will be claimed."""

    pending: Count
    running: Count
    depth: Count
    paused: bool = False
    jobs: tuple[QueueRow, ...] = ()


class SystemStatus(ServerMessage, frozen=True, kw_only=True, omit_defaults=False, tag="system:status"):
    """Rows 19, 24 and 32: state of the platform, on connect and on change.  `mode` is the mode that is loaded.

    `loading` are the modes whose models workers are loading, `loadProgress` how much of each is in place, on the
    worker that has come least far.  `nodes` are the machines that a monitor runs on; a monitor's own message has
    the one that is its own.  `comfy` are the ComfyUI instances.
    """

    mode: str | None
    vram: Vram
    storage: StorageHealth
    queue_state: QueueState
    loading: tuple[str, ...] = ()
    load_progress: dict[str, Fraction] = {}
    workers: Count = 0
    version: str = ""
    nodes: tuple[NodeStatus, ...] = ()
    comfy: tuple[ComfyHealth, ...] = ()


class Backend(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One worker that takes jobs now."""

    name: str
    backend: str
    device: str
    state: WorkerState
    job_types: tuple[JobType, ...]
    modes: tuple[str, ...] = ()
    mode: str | None = None
    slots: Count = 1
    running: Count = 0
    vram: Vram = Vram()
    node: str = ""


class SystemBackends(ServerMessage, frozen=True, kw_only=True, omit_defaults=False, tag="system:backends"):
    """Row 33: the workers there are, on change."""

    available: tuple[Backend, ...]
