"""What the engine learns of its device while it works: how long a step takes, by how many rows share it.

The batch grows while that makes more rows a second, and stays where it does not: a larger batch that is no faster
only makes those in it wait for each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final

#: Rows that are tried without having been measured.
FIRST_ROWS: Final = 4
#: Never more than this, whatever is measured.
MOST_ROWS: Final = 32
#: What a batch twice as large must gain in rows a second to be worth it.
LEAST_GAIN: Final = 1.05
#: A step that is at most this much slower costs nobody anything.
FREE_RIDE: Final = 1.03
#: Measurements kept for each size; the quickest counts, since whatever disturbs a step makes it slower.
KEPT: Final = 8
#: Measurements before a size is judged.
ENOUGH: Final = 3
#: Steps after which what was not worth it is tried again, for the device may have been busy with something else;
#: each time twice as many, up to the second number.
TRY_AGAIN: Final = (50, 2000)
#: Kinds remembered.
KINDS: Final = 64


class StepTimes:
    """Pure over the times it is told, in seconds."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def record(self, kind: Hashable, rows: int, seconds: float, *, took_bytes: int = 0) -> None:
        """A step of so many rows took so long, and so much memory at its widest where the device tells."""
        known = self._kinds.pop(kind, None) or _Kind()
        self._kinds[kind] = known  # the latest last
        while len(self._kinds) > KINDS:
            del self._kinds[next(iter(self._kinds))]
        known.record(rows, seconds)
        known.record_memory(rows, took_bytes)

    def too_many(self, kind: Hashable, rows: int) -> None:
        """So many rows did not fit into memory."""
        self._kinds.setdefault(kind, _Kind()).limit_memory(rows)

    def fits(self, kind: Hashable, rows: int, *, free_bytes: int | None = None) -> bool:
        """Whether so many rows may share a step: it is worth it, and they fit, as far as is known."""
        known = self._kinds.get(kind)
        if known is not None and free_bytes is not None and known.bytes_of(rows) > free_bytes:
            return False
        return rows <= self.most_rows(kind)

    def most_rows(self, kind: Hashable) -> int:
        """Rows that are worth sharing a step, as far as is known."""
        known = self._kinds.get(kind)
        return FIRST_ROWS if known is None else known.most

    def rides_free(self, kind: Hashable, rows: int, more: int) -> bool:
        """Whether `more` rows were seen to take no longer than `rows`."""
        known = self._kinds.get(kind)
        return known is not None and known.rides_free(rows, more)


class _Kind:
    """Steps of one kind."""

    def __init__(self) -> None:
        self.most = FIRST_ROWS
        self._seconds: dict[int, deque[float]] = {}
        self._memory = MOST_ROWS
        self._widest = (1, 0)  # the most rows that were seen, and their bytes
        self._steps = 0
        self._settled_at: int | None = None
        self._patience, self._most_patience = TRY_AGAIN

    def record(self, rows: int, seconds: float) -> None:
        self._steps += 1
        self._seconds.setdefault(rows, deque(maxlen=KEPT)).append(seconds)
        if self._settled_at is not None and self._steps - self._settled_at >= self._patience:
            self._settled_at = None
            self._patience = min(2 * self._patience, self._most_patience)
            self._seconds = {size: times for size, times in self._seconds.items() if size <= self.most}
            self.most = min(2 * self.most, self._memory)
        if self._settled_at is None and rows > self.most // 2 and len(self._seconds[rows]) >= ENOUGH:
            self._judge(rows)

    def record_memory(self, rows: int, took_bytes: int) -> None:
        if took_bytes and rows >= self._widest[0]:
            self._widest = (rows, took_bytes)

    def bytes_of(self, rows: int) -> float:
        """What so many rows will take, by what the largest batch took; 0 where nothing is known."""
        seen, took = self._widest
        return took * rows / seen

    def limit_memory(self, rows: int) -> None:
        self._memory = max(1, min(self._memory, rows - 1))
        self.most = min(self.most, self._memory)

    def rides_free(self, rows: int, more: int) -> bool:
        seen = {size: min(times) for size, times in self._seconds.items() if len(times) >= ENOUGH}
        here = [seconds for size, seconds in seen.items() if size <= rows]
        there = [seconds for size, seconds in seen.items() if size >= more]
        return bool(here) and bool(there) and min(there) <= FREE_RIDE * max(here)

    def _judge(self, rows: int) -> None:
        """`rows`, about the most that is allowed, was measured: is it worth it, and would more be?"""
        gained = rows / min(self._seconds[rows])
        smaller = {
            size: size / min(times)
            for size, times in self._seconds.items()
            if size <= rows // 2 and len(times) >= ENOUGH
        }
        if smaller and gained < LEAST_GAIN * max(smaller.values()):
            self.most = max(smaller, key=lambda size: smaller[size])
            self._settled_at = self._steps
        elif rows >= self.most:
            self.most = min(2 * self.most, self._memory)
