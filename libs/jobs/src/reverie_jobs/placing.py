"""Where in its lane a waiting job stands: a number between its neighbours', so that a move is one write.

Places are compared by (position, id).  Between two neighbours the middle is taken; only where the numbers have no
room left (after some fifty moves to the very same spot) the job lands beside them and the id decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

Place = tuple[float, str]
#: Distance kept from the first and the last, in seconds like the positions of new jobs.
STEP = 1.0


class Spot(StrEnum):
    """Where to move a job."""

    FRONT = "front"
    BACK = "back"
    BEFORE = "before"
    AFTER = "after"


def position_at(places: Sequence[Place], index: int) -> float:
    """The position that puts a job at `index` (0 is next) among the others, given in order without it."""
    if not places:
        return 0.0
    if index <= 0:
        return places[0][0] - STEP
    if index >= len(places):
        return places[-1][0] + STEP
    before, after = places[index - 1][0], places[index][0]
    return before + (after - before) / 2


def position_for(places: Sequence[Place], spot: Spot, *, beside: str | None = None) -> float:
    """The position that puts a job at a spot; KeyError if `beside` is not waiting in this lane."""
    if spot is Spot.FRONT:
        return position_at(places, 0)
    if spot is Spot.BACK:
        return position_at(places, len(places))
    index = next((at for at, (_, id_) in enumerate(places) if id_ == beside), None)
    if index is None:
        raise KeyError(beside)
    return position_at(places, index if spot is Spot.BEFORE else index + 1)
