"""Keeps previews flowing: repeats `job.watch.<id>` while a job runs and one of our sockets wants to see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from reverie_protocol.subjects import WATCH_REPEAT_S, job_watch
from reverie_runtime.bus.port import Bus, BusError


class Watches:
    """An actor that tells workers which jobs are watched: at once, then every `WATCH_REPEAT_S`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._new: dict[str, None] = {}
        self._wakened = asyncio.Event()

    def begin(self, job_id: str) -> None:
        """Ask for previews of this job now."""
        self._new[job_id] = None
        self._wakened.set()

    @asynccontextmanager
    async def run(self, watched: Callable[[], Iterable[str]]) -> AsyncIterator[None]:
        """Repeat for all that `watched` names while the context is open."""
        task = asyncio.create_task(self._loop(watched), name="preview-watches")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _loop(self, watched: Callable[[], Iterable[str]]) -> None:
        now = asyncio.get_running_loop().time
        repeat_at = now() + WATCH_REPEAT_S
        while True:
            try:
                async with asyncio.timeout_at(repeat_at):
                    await self._wakened.wait()
                job_ids = list(self._new)
            except TimeoutError:
                job_ids = list(watched())
                repeat_at = now() + WATCH_REPEAT_S
            self._new.clear()
            self._wakened.clear()
            await self._publish(job_ids)

    async def _publish(self, job_ids: Iterable[str]) -> None:
        try:
            for job_id in job_ids:
                await self._bus.publish(job_watch(job_id), b"")
        except BusError:
            return  # the next repetition tries again
