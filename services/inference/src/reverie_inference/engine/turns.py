"""Who goes next: pure, over what every job in work would do next.

A turn is one piece of work that the accelerator does at once: an evaluation of the network, prompts to encode,
pictures to decode, a tile.  Between two turns jobs come, go and change their lane, so nobody waits longer than one
turn to be heard.

The highest lane goes first.  In a lane the job that came first leads, so that it is finished before a later one of
another kind begins to take its time; but who joins goes before all others, and who was not served for `PATIENCE_S`
leads one turn.  Jobs that can share
the leader's piece come along: those of his lane as far as there is room, those of lower ones where they cost him
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final

import msgspec

#: How long a job of the highest lane may be passed over before it leads a turn, in seconds.
PATIENCE_S: Final = 2.0


class Piece(msgspec.Struct, frozen=True):
    """What a job would do next.

    Pieces of one `kind` can be done together, `rows` rows of a batch each (0 does not count).  `arrival` orders
    jobs by when they came; `waited_s` is how long this one has not been served.  One that is `joining`
    does what it must before it can share the others' steps.
    """

    job_id: str
    lane: int
    arrival: int
    kind: Hashable
    rows: int
    waited_s: float
    joining: bool = False


#: Whether so many rows of a kind still go into one batch.
Fits = Callable[[Hashable, int], bool]
#: Whether rows of a kind can be raised from one number to another without making the batch slower.
RidesFree = Callable[[Hashable, int, int], bool]


def next_turn(pieces: Iterable[Piece], *, fits: Fits, rides_free: RidesFree) -> list[Piece]:
    """The pieces to do now, the leader's first; empty only if there are none.

    All are of one kind.  The leader goes even where its own rows do not fit: it cannot get smaller.
    """
    waiting = sorted(pieces, key=lambda piece: (piece.lane, piece.arrival))
    if not waiting:
        return []
    leader = _leader(waiting)
    together, rows = [leader], leader.rows
    for piece in waiting:
        if piece is leader or piece.kind != leader.kind:
            continue
        more = rows + piece.rows
        if not fits(piece.kind, more):
            continue
        if piece.lane > leader.lane and not rides_free(piece.kind, rows, more):
            continue
        together.append(piece)
        rows = more
    return together


def _leader(waiting: list[Piece]) -> Piece:
    """Of the jobs of the highest lane, in order: who joins, or has waited too long, or the first."""
    lane = waiting[0].lane
    first = [piece for piece in waiting if piece.lane == lane]
    joining = [piece for piece in first if piece.joining]
    if joining:
        return joining[0]
    impatient = [piece for piece in first if piece.waited_s >= PATIENCE_S]
    return max(impatient, key=lambda piece: piece.waited_s, default=first[0])
