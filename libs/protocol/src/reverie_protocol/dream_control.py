"""What gateways ask the dreams service on `dream.ctl`, and what it answers.

The gateway says who asks (`owner`, `admin`); for anybody but its owner and administrators a session does not exist.
Without a session the owner's one under way is meant, or else the latest.
"""

from __future__ import annotations

import msgspec

from reverie_protocol.dreams import (
    DreamCandidate,
    DreamGuidance,
    DreamPlan,
    DreamSession,
    SessionId,
)
from reverie_protocol.errors import ErrorCodeText, FieldError
from reverie_protocol.jobs import Seconds
from reverie_protocol.quantities import Count, Fraction


class DreamRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, tag_field="verb"):
    """Base of what is asked on `dream.ctl`."""

    owner: str
    admin: bool = False
    session_id: SessionId | None = None


class StartDream(DreamRequest, frozen=True, kw_only=True, tag="start"):
    """Begin a session; without a seed one is drawn."""

    plan: DreamPlan
    draw_seed: bool = True


class StopDream(DreamRequest, frozen=True, kw_only=True, tag="stop"):
    """Make no more candidates."""


class GuideDream(DreamRequest, frozen=True, kw_only=True, tag="guide"):
    """Steer."""

    guidance: DreamGuidance


class ShowDream(DreamRequest, frozen=True, kw_only=True, tag="show"):
    """The session as it is now."""


class ListDreams(DreamRequest, frozen=True, kw_only=True, tag="list"):
    """The owner's sessions (an administrator's: everybody's), latest first."""

    limit: Count = 50


class TopDreams(DreamRequest, frozen=True, kw_only=True, tag="top"):
    """The best candidates, best first; filters go before the offset and the limit."""

    limit: Count = 50
    offset: Count = 0
    min_score: Fraction = 0.0
    rendered_only: bool = False


class RecentDreams(DreamRequest, frozen=True, kw_only=True, tag="recent"):
    """The latest judged candidates, latest first; filters go before the offset and the limit."""

    limit: Count = 20
    offset: Count = 0
    min_score: Fraction = 0.0
    rendered_only: bool = False


class ReplayDream(DreamRequest, frozen=True, kw_only=True, tag="replay"):
    """Choose all candidates of a session again, from its log; answered with those that come out otherwise."""


AnyDreamRequest = (
    StartDream | StopDream | GuideDream | ShowDream | ListDreams | TopDreams | RecentDreams | ReplayDream
)


class DreamAnswer(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Answer on `dream.ctl`: an error `code`, or what was asked for.

    `total` counts all candidates that pass the filters, or that were replayed; `different` are those of a replay
    that came out otherwise.
    """

    code: ErrorCodeText = ""
    message: str = ""
    fields: tuple[FieldError, ...] = ()
    session: DreamSession | None = None
    sessions: tuple[DreamSession, ...] = ()
    candidates: tuple[DreamCandidate, ...] = ()
    total: Count = 0
    different: tuple[int, ...] = ()


class DreamHost(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Heartbeat of a dreams process, key `<name>.<incarnation>` of the bucket `dream_hosts`."""

    name: str
    incarnation: str
    sessions: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    scorers: tuple[str, ...] = ()
    beat_at: Seconds = 0.0
