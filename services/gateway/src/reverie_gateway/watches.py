"""Keeps previews flowing: repeats `job.watch.<id>` while a job runs and one of our sockets wants to see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

from reverie_protocol.subjects import WATCH_REPEAT_S, job_watch
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock


class Watches:
    """An actor that tells workers which jobs are watched: at once, then every `WATCH_REPEAT_S`."""

    def __init__(self, bus: Bus, *, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._repeat_at = 0.0
        self._new: dict[str, None] = {}
        self._wakened = asyncio.Event()

    def begin(self, job_id: str) -> None:
        """Ask for previews of this job now."""
        self._new[job_id] = None
        self._wakened.set()

    @asynccontextmanager
    async def run(self, watched: Callable[[], Iterable[str]]) -> AsyncIterator[None]:
        """Repeat for all that `watched` names while the context is open."""
        async with acting(partial(self._round, watched), name="preview-watches", clock=self._clock):
            yield

    async def _round(self, watched: Callable[[], Iterable[str]]) -> None:
        try:
            async with asyncio.timeout_at(self._repeat_at):
                await self._wakened.wait()
            job_ids = list(self._new)
        except TimeoutError:
            job_ids = list(watched())
            self._repeat_at = asyncio.get_running_loop().time() + WATCH_REPEAT_S
        self._new.clear()
        self._wakened.clear()
        for job_id in job_ids:  # what the bus does not take now, the next repetition tells again
            await self._bus.publish(job_watch(job_id), b"")
