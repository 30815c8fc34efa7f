"""Keeps this worker's record in the bucket `workers` fresh."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import structlog

from reverie_protocol.jobs import Worker
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bucket, BusError
from reverie_runtime.clock import Clock
from reverie_worker.patience import wait_up_to

BEAT_S: Final = 0.75

log = structlog.get_logger(__name__)


class Heartbeat:
    """Writes the record every `BEAT_S` and at once after `hurry`; it expires by itself when we are gone."""

    def __init__(self, bucket: Bucket, key: str, record: Callable[[], Worker], *, clock: Clock) -> None:
        self._bucket = bucket
        self._key = key
        self._record = record
        self._clock = clock
        self._news = asyncio.Event()

    def hurry(self) -> None:
        """Something in the record changed."""
        self._news.set()

    async def beat(self) -> None:
        """Write the record now; an unreachable bus is no error, the next beat will do."""
        with contextlib.suppress(BusError):
            await self._bucket.put(self._key, msgspec.json.encode(self._record()))

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Beat during the block, then withdraw the record."""
        await self.beat()
        try:
            async with acting(self._round, name="heartbeat", clock=self._clock):
                yield
        finally:
            with contextlib.suppress(BusError):
                await self._bucket.delete(self._key)

    async def _round(self) -> None:
        await wait_up_to(self._news, BEAT_S, self._clock)
        self._news.clear()
        await self.beat()
