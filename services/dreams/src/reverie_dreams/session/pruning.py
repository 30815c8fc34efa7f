"""Which drafts are given up half-way.  Pure.

An estimate is compared with those that drafts of the same session had about half-way: the lower half is given up.
So the steps go to more tries.  Nothing is given up before there is something to compare with.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final

#: The part of its steps at which a draft is looked at.
FROM, TO = 0.35, 0.75
#: Estimates to compare with, at least and at most.
LEAST, MOST = 8, 64
#: The part that is given up.
PART: Final = 0.5


class Pruning:
    """Estimates of late, and what they say of the next one."""

    def __init__(self) -> None:
        self._estimates: deque[float] = deque(maxlen=MOST)

    def reset(self) -> None:
        """Other prompts have other scores."""
        self._estimates.clear()

    def hopeless(self, estimate: float) -> bool:
        """Whether a draft with this estimate is given up; it counts for those that follow."""
        ranked = sorted(self._estimates)
        self._estimates.append(estimate)
        if len(ranked) < LEAST:
            return False
        return bisect_left(ranked, estimate) < PART * len(ranked)


def worth_a_look(step: int, steps: int) -> bool:
    """Whether an estimate after so many of its steps says enough, early enough."""
    return steps > 3 and FROM <= step / steps <= TO
