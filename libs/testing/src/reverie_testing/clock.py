"""Virtual time: nothing passes until a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools

#: Turns of the event loop given to tasks between two moments; enough for a chain of wake-ups.
SETTLE_TURNS = 50


class VirtualClock:
    """A `reverie_runtime.clock.Clock` that a test moves."""

    def __init__(self, *, now: float = 1_700_000_000.0) -> None:
        self._start = now
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = itertools.count()

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return once the test has advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._serial), awake))
        await awake

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: wake every sleeper at its moment, in order, and let it act before going on."""
        end = self._elapsed + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._elapsed, _, awake = heapq.heappop(self._sleepers)
            if not awake.done():
                awake.set_result(None)
                await self.settle()
        self._elapsed = end
        await self.settle()

    async def settle(self) -> None:
        """Let all that is ready run, without time passing."""
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
