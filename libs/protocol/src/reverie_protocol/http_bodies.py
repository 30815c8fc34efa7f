"""Bodies of our own HTTP endpoints.  They refuse unknown fields; what they answer may gain fields."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.client_messages import EndOfLane, Priority, QueuePosition, StorageKey, StoredText
from reverie_protocol.controls import QueueControl
from reverie_protocol.errors import ErrorCodeText, FieldError
from reverie_protocol.jobs import (
    ComfyNodeError,
    ComfyRun,
    JobError,
    JobId,
    JobMeta,
    JobParams,
    JobState,
    JobType,
    Lane,
    Output,
    Phase,
    Seconds,
)
from reverie_protocol.quantities import Attempt, Count, Fraction, Seq, StepCount, StepIndex
from reverie_protocol.server_messages import QueueRow


class JobTimestamps(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """When a job reached each point of its life; null where it has not."""

    created_at: Seconds
    enqueued_at: Seconds
    started_at: Seconds | None = None
    finished_at: Seconds | None = None
    updated_at: Seconds


class JobView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`GET /v1/jobs/{id}`: the same story as the WebSocket's events tell.

    `position` is the place in the queue (0 is next) and null once the job does not wait; `waitingFor` says in a
    sentence what keeps a waiting job from starting, other than those before it; `progress` is the whole job's
    fraction; `phase`, `step` and `steps` say where a running job is, `node` and `comfy` where in a workflow;
    `retryOf` is the ended job that it does again.
    """

    job_id: str
    type: JobType
    state: JobState
    priority: Lane
    position: Count | None = None
    waiting_for: str | None = None
    attempt: Attempt
    progress: Fraction = 0.0
    phase: Phase | None = None
    step: StepIndex = 0
    steps: StepCount = 0
    node: str = ""
    comfy: ComfyRun | None = None
    cancelling: bool = False
    retry_of: str | None = None
    outputs: tuple[Output, ...] = ()
    partial: bool = False
    error: JobError | None = None
    meta: JobMeta | None = None
    params: JobParams
    timestamps: JobTimestamps
    seq: Seq


class JobAccepted(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """202 of `POST /v1/jobs`: the record is durable; `Location` and `url` lead to it."""

    job_id: str
    state: JobState
    priority: Lane
    seq: Seq
    existing: bool = False
    url: str


class JobPage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`GET /v1/jobs`: latest first; `cursor` leads to the next page, null on the last one; `total` counts all."""

    jobs: tuple[JobView, ...]
    cursor: str | None = None
    total: Count


class JobPatch(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Body of `PATCH /v1/jobs/{id}`: another lane, another place within it, or both; as in `job:priority`."""

    priority: Priority | None = None
    position: QueuePosition | None = None
    place: EndOfLane | None = None
    before: JobId | None = None
    after: JobId | None = None


class QueueView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`GET /v1/queue`: what `queue:state` says, and the gates behind it."""

    pending: Count
    running: Count
    depth: Count
    paused: bool = False
    jobs: tuple[QueueRow, ...] = ()
    controls: QueueControl


class UploadAccepted(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`POST /v1/upload`: what later messages call the picture, for 300 seconds."""

    file_ref: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="reference of the upload")]


class TextToStore(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `PUT /storage/{key}`."""

    payload: StoredText


class TextStored(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `PUT /storage/{key}`: the text is kept for 300 seconds."""

    ok: bool = True
    key: StorageKey


class StorageName(msgspec.Struct, frozen=True):
    """The key in the path of `PUT /storage/{key}`."""

    key: StorageKey


class OpenaiError(msgspec.Struct, frozen=True, kw_only=True):
    """The error as clients of OpenAI's API look for it; `param` is the first wrong field."""

    message: str
    type: str
    param: str | None = None
    code: ErrorCodeText


class ErrorBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Body of every HTTP error.  `detail` is a sentence, or one entry per wrong field.

    `code` is stable; `requestId` finds the request in the logs; `jobId` and `url` are there where a job goes on
    although this request ended (504), `jobIds` where the request made several.  `nodeErrors` are the wrong
    nodes of a workflow.  `error` is there on the paths of OpenAI's API.
    """

    detail: str | tuple[FieldError, ...]
    code: ErrorCodeText
    request_id: str
    job_id: str | None = None
    job_ids: tuple[JobId, ...] = ()
    url: str | None = None
    node_errors: tuple[ComfyNodeError, ...] = ()
    error: OpenaiError | None = None
