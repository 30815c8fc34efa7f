"""Moves: the lane and the place in it that a client wants for a job; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import msgspec

from reverie_jobs.placing import Place, Spot, position_at, position_for
from reverie_jobs.transitions import Refused, reprioritise
from reverie_protocol.client_messages import JobPriority
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.http_bodies import JobPatch
from reverie_protocol.jobs import Job, JobState, Lane

_PLACES = ("position", "place", "before", "after")


class Move(msgspec.Struct, frozen=True):
    """`lane` None keeps the job's own; at most one of `index` and `spot` says where in it (`beside` which job)."""

    lane: Lane | None = None
    index: int | None = None
    spot: Spot | None = None
    beside: str | None = None

    @property
    def placed(self) -> bool:
        """Whether it names a place within the lane."""
        return self.index is not None or self.spot is not None


def read_move(asked: JobPriority | JobPatch) -> Move:
    """What a client asked for; `invalid_field` for two places at once, or for nothing at all."""
    given = [name for name in _PLACES if getattr(asked, name) is not None]
    if len(given) > 1:
        _refuse(given[1:], f"differs from {given[0]}; a job has one place", "conflict")
    if not given and asked.priority is None:
        _refuse(["priority"], "is required where no place is given", "missing")
    if asked.place is not None:
        return Move(asked.priority, spot=Spot(asked.place))
    if asked.before is not None:
        return Move(asked.priority, spot=Spot.BEFORE, beside=asked.before)
    if asked.after is not None:
        return Move(asked.priority, spot=Spot.AFTER, beside=asked.after)
    return Move(asked.priority, index=asked.position)


def moved(job: Job, move: Move, places: Sequence[Place], *, now: float) -> Job | None:
    """The job after a move, None if it is there already; `places` are those of the others in the lane, in order.

    A running job takes the lane alone: it has no place until it is queued again.  `job_finished` after its end,
    `invalid_field` where the job to stand beside does not wait in that lane.
    """
    position = _position(move, places) if job.state is JobState.QUEUED else None
    lane = job.priority if move.lane is None else move.lane
    try:
        return reprioritise(job, lane=lane, position=position, now=now)
    except Refused:
        raise ReverieError(ErrorCode.JOB_FINISHED, f"the job is {job.state} already", job_id=job.id) from None


def _position(move: Move, places: Sequence[Place]) -> float | None:
    if move.index is not None:
        return position_at(places, move.index)
    if move.spot is None:
        return None
    try:
        return position_for(places, move.spot, beside=move.beside)
    except KeyError:
        _refuse([move.spot], "must be another job of yours that waits in that lane", "choice")


def _refuse(names: Sequence[str], msg: str, kind: str) -> NoReturn:
    fields = [FieldError((name,), msg, kind) for name in names]
    raise ReverieError(ErrorCode.INVALID_FIELD, f"{', '.join(names)}: {msg}", fields=fields)
