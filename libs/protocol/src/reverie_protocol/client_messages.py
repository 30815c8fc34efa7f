"""What a client sends on `/v1/ws`.  `id` is the client's own and comes back with the answer.

"Row n" in a docstring is the row of the channel map that asks for the message.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from reverie_protocol.dreams import (
    DreamGuidance,
    DreamSeconds,
    DreamStrategy,
    Hours,
    RenderInterval,
    SessionId,
    StrategyName,
    Temperature,
    Threshold,
    TopK,
    Weights,
)
from reverie_protocol.jobs import (
    Guidance,
    JobId,
    Lane,
    Prompt,
    Seconds,
    Seed,
    Steps,
    SubmittedParams,
)
from reverie_protocol.quantities import Epoch
from reverie_protocol.sizes import Size

MAX_STORED_TEXT_CHARS = 65_536

StorageKey = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9:._-]{0,199}$",
        description="1 to 200 letters, digits, `:`, `.`, `_` or `-`, starting with a letter or digit",
    ),
]
StoredText = Annotated[str, Meta(max_length=MAX_STORED_TEXT_CHARS)]
ClientId = Annotated[str, Meta(max_length=200)] | int
Cursor = Annotated[int, Meta(ge=0, description="`seq` of the last event that was seen")]
Priority = Annotated[
    Lane,
    Meta(
        description="lane by number (0..3) or name (urgent, normal, batch, background)",
        extra={"by_name": True},
    ),
]
EndOfLane = Literal["front", "back"]
QueuePosition = Annotated[int, Meta(ge=0, description="place within its lane; 0 is next")]


class ClientMessage(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    tag_field="type",
    forbid_unknown_fields=True,
):
    """Base of everything a client sends; the tag is the message's `type`."""

    id: ClientId | None = None


class Ping(ClientMessage, frozen=True, kw_only=True, tag="ping"):
    """Row 25: keep-alive, every 30 seconds; answered by `pong` with the same `id`."""


class Authenticate(ClientMessage, frozen=True, kw_only=True, tag="AUTHENTICATE"):
    """Connection: proves who this client is where no header could; answered by `AUTHENTICATED`."""

    session_token: Annotated[str, Meta(min_length=1, max_length=8192, description="a JWT")]
    agent_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class Hello(ClientMessage, frozen=True, kw_only=True, tag="hello"):
    """Connection: what this socket wants; answered by `hello:ok`, with a `cursor` by `resumed` too.

    `previews` sends binary preview frames of all its owner's jobs.
    """

    previews: bool = False
    cursor: Cursor | None = None
    epoch: Epoch | None = None


class Resume(ClientMessage, frozen=True, kw_only=True, tag="resume"):
    """Connection: send the job events after `cursor`; answered by `resumed`, then the events."""

    cursor: Cursor
    epoch: Epoch | None = None


class JobSubmit(ClientMessage, frozen=True, kw_only=True, tag="job:submit"):
    """Rows 1, 2 and 4: a job, answered by `job:ack` once its record is durable.

    `jobType` says which parameters apply.  They stand flat beside it or under `params`; parsing merges the two.
    `notBefore` keeps the job waiting until then; not begun by `startBy` or not done by `finishBy`, it fails.
    """

    params: SubmittedParams
    priority: Priority = Lane.NORMAL
    not_before: Seconds | None = None
    start_by: Seconds | None = None
    finish_by: Seconds | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    previews: bool = False


class JobCancel(ClientMessage, frozen=True, kw_only=True, tag="job:cancel"):
    """Row 6: stop a job, at once if it waits, at its next denoising step if it runs.  Idempotent."""

    job_id: JobId


class JobPreview(ClientMessage, frozen=True, kw_only=True, tag="job:preview"):
    """Beyond the map: start or stop binary preview frames of one job on this socket."""

    job_id: JobId
    enabled: bool = True


class JobPriority(ClientMessage, frozen=True, kw_only=True, tag="job:priority"):
    """Row 31: move a job to another lane, and a waiting one to another place within it.

    The place is one of `position` (an index), `place`, `before` or `after` (another waiting job of that lane).
    """

    job_id: JobId
    priority: Priority
    position: QueuePosition | None = None
    place: EndOfLane | None = None
    before: JobId | None = None
    after: JobId | None = None


class DreamStart(ClientMessage, frozen=True, kw_only=True, tag="dream:start"):
    """Row 7: begin a dream session; answered by `dream:started`.

    `duration` is in seconds, `duration_hours` in hours: at most one of them, an hour without.  The other parameters
    keep the names of `POST /dreams/start`.
    """

    prompt: Prompt
    duration: DreamSeconds | None = None
    duration_hours: Hours | None = msgspec.field(default=None, name="duration_hours")
    temperature: Temperature = 0.5
    similarity_threshold: Threshold = msgspec.field(default=0.7, name="similarity_threshold")
    render_interval: RenderInterval = msgspec.field(default=100, name="render_interval")
    top_k: TopK = msgspec.field(default=100, name="top_k")
    strategy: StrategyName = DreamStrategy.RANDOM
    mode: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    size: Size | None = None
    negative_prompt: Prompt | None = msgspec.field(default=None, name="negative_prompt")
    guidance_scale: Guidance | None = msgspec.field(default=None, name="guidance_scale")
    num_inference_steps: Steps | None = msgspec.field(default=None, name="num_inference_steps")
    weights: Weights | None = None
    seed: Seed | None = None


class DreamStop(ClientMessage, frozen=True, kw_only=True, tag="dream:stop"):
    """Row 8: end the session, or the only one there is; answered by `dream:stopped`."""

    session_id: SessionId | None = None


class DreamTop(ClientMessage, frozen=True, kw_only=True, tag="dream:top"):
    """Row 10: the best candidates so far; answered by `dream:top:result`.

    Filters go before the offset and the limit.
    """

    session_id: SessionId | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="candidates")] = 50
    offset: Annotated[int, Meta(ge=0, le=1_000_000, description="candidates left out before")] = 0
    min_score: Threshold = msgspec.field(default=0.0, name="min_score")
    rendered_only: bool = msgspec.field(default=False, name="rendered_only")


class DreamRecent(ClientMessage, frozen=True, kw_only=True, tag="dream:recent"):
    """Row 11: the latest candidates; answered by `dream:recent:result`."""

    session_id: SessionId | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="candidates")] = 20
    offset: Annotated[int, Meta(ge=0, le=1_000_000, description="candidates left out before")] = 0
    min_score: Threshold = msgspec.field(default=0.0, name="min_score")
    rendered_only: bool = msgspec.field(default=False, name="rendered_only")


class DreamGuide(ClientMessage, frozen=True, kw_only=True, tag="dream:guide"):
    """Row 13: steer a running session; what is left out stays as it is.  Answered by `dream:guide:ok`."""

    params: DreamGuidance
    session_id: SessionId | None = None


class StoragePut(ClientMessage, frozen=True, kw_only=True, tag="storage:put"):
    """Row 22: keep a small text for 300 seconds; answered by `storage:put:ok`."""

    key: StorageKey
    payload: StoredText
