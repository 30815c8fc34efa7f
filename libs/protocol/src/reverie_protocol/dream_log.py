"""What happened in a dream session, in order: the events of its log, from which everything else follows.

One revision of the key `<sessionId>` in the bucket `dream_log` is one `DreamLogEntry`; its events happened in their
order.  Every random choice comes from the session's seed and the number of the candidate, so that the same events
make the same candidates again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.dreams import CandidateId, DreamGuidance, DreamPlan, DreamState, Weights
from reverie_protocol.jobs import GenerateParams, Seconds
from reverie_protocol.quantities import Fraction, Pixels


class DreamEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Base of what is logged."""


class Started(DreamEvent, frozen=True, kw_only=True, tag="started"):
    """The session began; `params` are what drafts have in common.

    What the service was set to is here too, so that a replay does not depend on it: the modifiers of prompts by
    group, and how much each scorer counts where nobody says otherwise.
    """

    plan: DreamPlan
    params: GenerateParams
    modifiers: dict[str, tuple[str, ...]] = {}
    weights: Weights = {}


class Adopted(DreamEvent, frozen=True, kw_only=True, tag="adopted"):
    """A process took the session over; whoever had it before can append no more."""

    host: str


class Guided(DreamEvent, frozen=True, kw_only=True, tag="guided"):
    """A guide is in force from the next candidate on."""

    guidance: DreamGuidance


class Proposed(DreamEvent, frozen=True, kw_only=True, tag="proposed"):
    """A strategy chose a candidate: `params` make its draft, job `job`; its lineage is `parents` and `mutation`."""

    id: CandidateId
    job: str
    params: GenerateParams
    strategy: str
    parents: tuple[int, ...] = ()
    mutation: str = ""
    modifiers: tuple[str, ...] = ()


class Pruned(DreamEvent, frozen=True, kw_only=True, tag="pruned"):
    """A draft was given up half-way: its estimate scored `estimate` at this part of its steps."""

    id: CandidateId
    estimate: Fraction
    progress: Fraction


class Dropped(DreamEvent, frozen=True, kw_only=True, tag="dropped"):
    """A draft was given up for another reason: `guided`, `failed`, `lost`, `stopped`."""

    id: CandidateId
    why: str


class Scored(DreamEvent, frozen=True, kw_only=True, tag="scored"):
    """A draft was judged.  `scores` are calibrated, by scorer; `signature` is what likeness is measured by.

    `hash` is a perceptual one.  `key` is the picture in the store, `width` and `height` its size in pixels.
    """

    id: CandidateId
    scores: dict[str, float]
    hash: str
    signature: Annotated[str, Meta(description="64 signed bytes, base64")] = ""
    key: str = ""
    width: Pixels = 0
    height: Pixels = 0


class Kept(DreamEvent, frozen=True, kw_only=True, tag="kept"):
    """A judged candidate is among the best; `out` are those that it displaced."""

    id: CandidateId
    score: Fraction
    out: tuple[int, ...] = ()


class Merged(DreamEvent, frozen=True, kw_only=True, tag="merged"):
    """A judged candidate is a near duplicate; the better of the two stays."""

    id: CandidateId
    into: CandidateId


class Rendering(DreamEvent, frozen=True, kw_only=True, tag="rendering"):
    """The full picture of a candidate was ordered, as job `job`."""

    id: CandidateId
    job: str


class Rendered(DreamEvent, frozen=True, kw_only=True, tag="rendered"):
    """The full picture of a candidate is there; without a key it could not be made."""

    id: CandidateId
    key: str = ""


class Stopped(DreamEvent, frozen=True, kw_only=True, tag="stopped"):
    """The session passed into this state."""

    state: DreamState
    why: str = ""


DreamHappening = (
    Started
    | Adopted
    | Guided
    | Proposed
    | Pruned
    | Dropped
    | Scored
    | Kept
    | Merged
    | Rendering
    | Rendered
    | Stopped
)


class DreamLogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of a session's log: what happened at once, written by `host`, `op` naming the write."""

    at: Seconds
    host: str
    op: str
    events: tuple[DreamHappening, ...]
