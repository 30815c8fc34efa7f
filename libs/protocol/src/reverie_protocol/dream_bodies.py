"""Bodies of `/dreams/*`, in the shapes that existing frontends speak, and of `/v1/dreams`, which are ours."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.dreams import (
    CandidateId,
    DreamCandidate,
    DreamGuidance,
    DreamPlan,
    DreamState,
    DreamStats,
    DreamStrategy,
    Hours,
    RenderInterval,
    StrategyName,
    Temperature,
    Threshold,
    TopK,
    Weights,
)
from reverie_protocol.jobs import Guidance, Prompt, Seconds, Seed, Steps
from reverie_protocol.quantities import Count, Duration, Fraction
from reverie_protocol.sizes import Size


class DreamsStart(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /dreams/start` and `POST /v1/dreams`."""

    prompt: Prompt
    duration_hours: Hours = 1.0
    temperature: Temperature = 0.5
    similarity_threshold: Threshold = 0.7
    render_interval: RenderInterval = 100
    top_k: TopK = 100
    strategy: StrategyName = DreamStrategy.RANDOM
    mode: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    size: Size | None = None
    negative_prompt: Prompt | None = None
    guidance_scale: Guidance | None = None
    num_inference_steps: Steps | None = None
    weights: Weights | None = None
    seed: Seed | None = None


class DreamsStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `POST /dreams/start`."""

    status: str
    sessionId: str
    base_prompt: str
    duration_hours: Annotated[float, Meta(description="hours")]
    top_k: Count


class DreamsStopped(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `POST /dreams/stop`; zeros where nobody dreamt."""

    status: str
    total_dreams: Count
    candidates_kept: Count


class DreamsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `GET /dreams/status`; null `sessionId` and zeros where there is no session."""

    is_dreaming: bool = False
    dream_count: Count = 0
    dreams_per_second: Annotated[float, Meta(description="candidates per second")] = 0.0
    candidates: Count = 0
    top_k: Count = 0
    elapsed_seconds: Duration = 0.0
    sessionId: str | None = None
    state: DreamState | None = None


class DreamsStats(DreamsStatus, frozen=True, kw_only=True):
    """Answer of `GET /dreams/stats`."""

    dreams_per_hour: Annotated[float, Meta(description="candidates per hour")] = 0.0
    scored: Count = 0
    pruned: Count = 0
    dropped: Count = 0
    merged: Count = 0
    rendered: Count = 0
    in_flight: Count = 0
    best_score: Fraction = 0.0


class DreamsCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One of `GET /dreams/top` and `/dreams/recent`; `image_data` is a base64 PNG, null where it is gone.

    Only the first few of a list come with their picture; `url` and `thumbnailUrl` are there for all.
    """

    seed: Seed
    prompt: str
    score: Fraction
    timestamp: Seconds
    rendered: bool
    image_data: str | None = None
    url: str | None = None
    thumbnailUrl: str | None = None
    params: dict[str, object] = {}
    id: Count = 0
    scores: dict[str, float] = {}
    parents: tuple[int, ...] = ()
    mutation: str = ""
    strategy: str = ""


class DreamView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`GET /v1/dreams/{session}`: a session as it is now."""

    session_id: str
    state: DreamState
    plan: DreamPlan
    guidance: DreamGuidance
    stats: DreamStats
    error: str | None = None
    started_at: Seconds
    ends_at: Seconds
    ended_at: Seconds | None = None


class DreamPage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`GET /v1/dreams`: sessions, the latest first; `total` counts all of them."""

    sessions: tuple[DreamView, ...]
    total: Count


class DreamCandidatePage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`GET /v1/dreams/{session}/top` and `/recent`; `total` counts all that pass the filters."""

    session_id: str
    candidates: tuple[DreamCandidate, ...]
    total: Count


class DreamReplayed(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`GET /v1/dreams/{session}/replay`: candidates chosen again from the log, and those that differ."""

    session_id: str
    candidates: Count
    different: tuple[CandidateId, ...]


DREAM_BODIES = (
    DreamReplayed,
    DreamsStart,
    DreamsStarted,
    DreamsStopped,
    DreamsStatus,
    DreamsStats,
    DreamsCandidate,
    DreamView,
    DreamPage,
    DreamCandidatePage,
    DreamGuidance,
)
