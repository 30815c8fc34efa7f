"""When to try again to reach an instance: for ever, with full jitter.

Each delay is drawn evenly from nothing up to a bound that grows from 250 ms to 5 s.  It grows slowly on purpose: a
ComfyUI that restarts is away for 20 to 55 s, and who waits up to 5 s by then notices it late.  With a growth of
0.8 % a try the bound is 1.1 s after a minute, so that of all restarts of up to a minute 99 % are noticed within a
second; it reaches 5 s after some five minutes.  A refused try costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_BOUND_S: Final = 0.25
LAST_BOUND_S: Final = 5.0
GROWTH: Final = 1.008
#: Full jitter may draw nothing at all, many times in a row.
LEAST_S: Final = 0.02
#: A connection that ends within this time was none; after so many in a row each next one waits twice as long.
BRIEF_S: Final = 2.0
MOST_BRIEF: Final = 3


class Backoff:
    """Delays between tries.  `random` gives numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._bound_s = FIRST_BOUND_S
        self._attempts = 0
        self._brief = 0

    @property
    def attempts(self) -> int:
        """Delays given since the last reset."""
        return self._attempts

    def next(self) -> float:
        """Seconds to wait before the next try."""
        delay_s = max(LEAST_S, self._random() * self._bound_s)
        if self._brief > MOST_BRIEF:
            longest_s = min(LAST_BOUND_S, FIRST_BOUND_S * 2.0 ** (self._brief - MOST_BRIEF))
            delay_s = max(delay_s, longest_s * (0.5 + self._random() / 2))
        self._bound_s = min(LAST_BOUND_S, self._bound_s * GROWTH)
        self._attempts += 1
        return delay_s

    def ended(self, lasted_s: float) -> None:
        """A connection ended: a server that takes and drops them at once is not asked all the time."""
        self._brief = min(self._brief + 1, 3 * MOST_BRIEF) if lasted_s < BRIEF_S else 0

    def reset(self) -> None:
        """It was reached."""
        self._bound_s = FIRST_BOUND_S
        self._attempts = 0
