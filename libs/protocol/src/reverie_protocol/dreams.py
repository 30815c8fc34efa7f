"""Dream sessions: generation in the background that keeps its best finds.  The records and events of them.

One record per session in the KV bucket `dreams`.  Scores and thresholds are fractions 0..1, times are seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import Guidance, Prompt, Seconds, Seed, Steps
from reverie_protocol.quantities import Count, Duration, Fraction
from reverie_protocol.sizes import Size

SessionId = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="1 to 64 letters, digits, `_` or `-`"),
]
Hours = Annotated[float, Meta(ge=0.001, le=24, description="hours")]
Temperature = Annotated[float, Meta(ge=0, le=1, description="0 stays close, 1 wanders far")]
Threshold = Annotated[float, Meta(ge=0, le=1, description="least score that is kept")]
RenderInterval = Annotated[int, Meta(ge=1, description="candidates between two full renders")]
TopK = Annotated[int, Meta(ge=10, le=1000, description="candidates kept")]


class DreamStrategy(StrEnum):
    """How a session walks from one candidate to the next."""

    RANDOM = "random"
    LINEAR_WALK = "linear_walk"
    GRID = "grid"
    EVOLUTIONARY = "evolutionary"
    TEMPERATURE = "temperature"
    CLUSTER = "cluster"
    SLERP = "slerp"


class DreamState(StrEnum):
    """Where a session is in its life; `finished` ran its whole duration, `stopped` was told to."""

    DREAMING = "dreaming"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class DreamGuidance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be steered while a session dreams; a field left at None stays as it is."""

    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None
    temperature: Temperature | None = None
    similarity_threshold: Threshold | None = None
    render_interval: RenderInterval | None = None
    strategy: DreamStrategy | None = None
    guidance_scale: Guidance | None = None
    num_inference_steps: Steps | None = None


class DreamStats(msgspec.Struct, frozen=True, omit_defaults=False):
    """How a session does, in the names of `GET /dreams/status` and `/dreams/stats`."""

    is_dreaming: bool = False
    dream_count: Count = 0
    dreams_per_second: Annotated[float, Meta(description="candidates per second")] = 0.0
    dreams_per_hour: Annotated[float, Meta(description="candidates per hour")] = 0.0
    candidates: Count = 0
    top_k: Count = 0
    elapsed_seconds: Duration = 0.0


class DreamCandidate(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One find: the seed and parameters that made it, how it scored and where its picture lies."""

    seed: Seed
    score: Fraction
    prompt: str = ""
    timestamp: Seconds = 0.0
    rendered: bool = False
    url: str | None = None
    thumbnail_url: str | None = None
    params: dict[str, object] = {}


class DreamSession(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Record of one session, key `<sessionId>` of the KV bucket `dreams`; written by the dreams service.

    `guidance` holds the steering in force, `top` the best candidates, best first.
    """

    id: SessionId
    owner: str
    state: DreamState
    prompt: Prompt
    strategy: DreamStrategy
    duration_hours: Hours
    temperature: Temperature
    similarity_threshold: Threshold
    render_interval: RenderInterval
    top_k: TopK
    mode: str | None = None
    size: Size | None = None
    guidance: DreamGuidance = DreamGuidance()
    stats: DreamStats = DreamStats()
    top: tuple[DreamCandidate, ...] = ()
    error: str | None = None
    started_at: Seconds
    ends_at: Seconds
    updated_at: Seconds


class DreamStatusEvent(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A session's state on `dream.status`, about every 2 seconds while it dreams; latest wins."""

    session_id: SessionId
    owner: str
    state: DreamState
    stats: DreamStats


class DreamCandidateEvent(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A promising candidate as it was found, on `dream.candidate.<session>`."""

    session_id: SessionId
    owner: str
    candidate: DreamCandidate
