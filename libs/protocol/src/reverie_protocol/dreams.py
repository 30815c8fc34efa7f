"""Dream sessions: generation in the background that keeps its best finds.  The records and events of them.

One record per session in the KV bucket `dreams`; what happened in it, in order, is its log (`dream_log`).  Scores
and thresholds are fractions 0..1, times are seconds.
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
DreamSeconds = Annotated[float, Meta(ge=3.6, le=86_400, description="seconds")]
Temperature = Annotated[float, Meta(ge=0, le=1, description="0 stays close, 1 wanders far")]
Threshold = Annotated[float, Meta(ge=0, le=1, description="least score that is kept")]
RenderInterval = Annotated[int, Meta(ge=1, description="candidates between two full renders")]
TopK = Annotated[int, Meta(ge=10, le=1000, description="candidates kept")]
CandidateId = Annotated[int, Meta(ge=1, description="number of the candidate in its session, from 1")]
Weight = Annotated[float, Meta(ge=0, le=100, description="share in the score; 0 is none")]
Weights = Annotated[
    dict[str, Weight], Meta(max_length=16, description="how much each scorer counts, by name")
]
StrategyName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_-]{0,39}$",
        description="random, linear_walk, grid, evolutionary, temperature, cluster, slerp, or a plugged-in one",
    ),
]
DEFAULT_DURATION_S = 3600.0


class DreamStrategy(StrEnum):
    """How a session walks from one candidate to the next; others can be plugged in."""

    RANDOM = "random"
    LINEAR_WALK = "linear_walk"
    GRID = "grid"
    EVOLUTIONARY = "evolutionary"
    TEMPERATURE = "temperature"
    CLUSTER = "cluster"
    SLERP = "slerp"


class DreamState(StrEnum):
    """Where a session is in its life; `finished` ran its whole duration, `stopped` was told to.

    `stopping` makes no more candidates and renders the rest of its best.
    """

    DREAMING = "dreaming"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """True if nothing more happens in it."""
        return self not in (DreamState.DREAMING, DreamState.STOPPING)


class DreamGuidance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be steered while a session dreams; a field left at None stays as it is.

    `weights` replaces the weights of the scorers.  `more_like` and `less_like` name candidates whose likeness is
    wanted or not, in addition to those named before; `forget_likes` drops these first.
    """

    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None
    temperature: Temperature | None = None
    similarity_threshold: Threshold | None = None
    render_interval: RenderInterval | None = None
    strategy: StrategyName | None = None
    guidance_scale: Guidance | None = None
    num_inference_steps: Steps | None = None
    weights: Weights | None = None
    more_like: Annotated[tuple[CandidateId, ...], Meta(max_length=32)] | None = None
    less_like: Annotated[tuple[CandidateId, ...], Meta(max_length=32)] | None = None
    forget_likes: bool | None = None


class DreamPlan(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a session was asked for when it began; `seed` is where all its random choices come from."""

    prompt: Prompt
    negative_prompt: Prompt | None = None
    strategy: StrategyName = DreamStrategy.RANDOM
    duration_s: DreamSeconds = DEFAULT_DURATION_S
    temperature: Temperature = 0.5
    similarity_threshold: Threshold = 0.7
    render_interval: RenderInterval = 100
    top_k: TopK = 100
    mode: str | None = None
    size: Size | None = None
    guidance_scale: Guidance | None = None
    num_inference_steps: Steps | None = None
    weights: Weights | None = None
    seed: Seed = 0


class DreamStats(msgspec.Struct, frozen=True, omit_defaults=False):
    """How a session does, in the names of `GET /dreams/status` and `/dreams/stats`.

    `dream_count` are the drafts that were begun; of these some were `pruned` half-way, `dropped` (they did not fit
    a guide any more, or failed), or `merged` with a near duplicate; `candidates` are kept now, `rendered` in full.
    """

    is_dreaming: bool = False
    dream_count: Count = 0
    dreams_per_second: Annotated[float, Meta(description="candidates per second")] = 0.0
    dreams_per_hour: Annotated[float, Meta(description="candidates per hour")] = 0.0
    candidates: Count = 0
    top_k: Count = 0
    elapsed_seconds: Duration = 0.0
    scored: Count = 0
    pruned: Count = 0
    dropped: Count = 0
    merged: Count = 0
    rendered: Count = 0
    in_flight: Count = 0
    best_score: Fraction = 0.0


class DreamCandidate(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One find: the seed and parameters that made it, how it scored and where its picture lies.

    `parents` are the candidates it was made from and `mutation` says how; `scores` are those of each scorer,
    calibrated.  `url` is the full picture once it is `rendered`, before that the draft.
    """

    seed: Seed
    score: Fraction
    prompt: str = ""
    timestamp: Seconds = 0.0
    rendered: bool = False
    url: str | None = None
    thumbnail_url: str | None = None
    params: dict[str, object] = {}
    id: Count = 0
    scores: dict[str, float] = {}
    parents: tuple[int, ...] = ()
    mutation: str = ""
    strategy: str = ""
    fitness: Annotated[float, Meta(description="the score, moved by what it is to be like")] = 0.0


class DreamSession(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Record of one session, key `<sessionId>` of the KV bucket `dreams`; written by compare-and-set.

    `plan` is what was asked for, `guidance` what was changed since, all together.  `host` is the dreams process
    that works on it.  `best` are its first few candidates; all of them come from its log.
    """

    id: SessionId
    owner: str
    state: DreamState
    plan: DreamPlan
    guidance: DreamGuidance = DreamGuidance()
    stats: DreamStats = DreamStats()
    best: tuple[DreamCandidate, ...] = ()
    host: str = ""
    stop_asked: bool = False
    error: str | None = None
    op: str = ""
    started_at: Seconds
    ends_at: Seconds
    ended_at: Seconds | None = None
    updated_at: Seconds


class DreamStatusEvent(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A session's state on `dream.status`, at least every 2 seconds while it dreams; latest wins."""

    session_id: SessionId
    owner: str
    state: DreamState
    stats: DreamStats


class DreamCandidateEvent(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A promising candidate as it was found, on `dream.candidate.<session>`."""

    session_id: SessionId
    owner: str
    candidate: DreamCandidate
