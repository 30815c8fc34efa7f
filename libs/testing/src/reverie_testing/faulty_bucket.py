"""One process's way to a bucket, with faults: replies get lost, writes come late, the process stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import TypeVar

from reverie_runtime.bus.port import Bucket, BusError, Entry, RevisionConflict, WatchEvent, WriteUncertain

#: Turns of the event loop until a sender gives a lost reply up: others go on meanwhile.
NOTICED_TURNS = 4

Result = TypeVar("Result")


class Loss(Enum):
    """What becomes of a write whose reply is lost."""

    APPLIED = auto()
    DROPPED = auto()
    LATE = auto()
    """It is on its way until `deliver_late`, also when its sender is no more."""


class FaultyBucket:
    """See `reverie_runtime.bus.port.Bucket`; any bucket behind it does the work."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._loss: Loss | None = None
        self._late: list[Callable[[], Awaitable[object]]] = []
        self._hears = asyncio.Event()
        self._acts = asyncio.Event()
        self.thaw()

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self._bucket.name

    @property
    def frozen(self) -> bool:
        """Whether the process stands still."""
        return not self._acts.is_set()

    @property
    def lagging(self) -> bool:
        """Whether the watch stands still."""
        return not self._hears.is_set()

    def freeze(self) -> None:
        """Let nothing begin or return, and no watch go on, until `thaw`."""
        self._acts.clear()
        self.lag()

    def thaw(self) -> None:
        """Go on as if nothing had been."""
        self._acts.set()
        self.catch_up()

    def lag(self) -> None:
        """Let no watch go on, until `catch_up`."""
        self._hears.clear()

    def catch_up(self) -> None:
        """Let the watches go on."""
        self._hears.set()

    def lose(self, loss: Loss) -> None:
        """Lose the reply of the next `create` or `update`."""
        self._loss = loss

    async def deliver_late(self) -> None:
        """Let the writes arrive that were on their way; whatever they say, nobody hears it."""
        late, self._late = self._late, []
        for write in late:
            try:
                await write()
            except (RevisionConflict, BusError):
                continue

    async def get(self, key: str) -> Entry | None:
        """As the port says."""
        return await self._call(lambda: self._bucket.get(key))

    async def history(self, key: str) -> list[Entry]:
        """As the port says."""
        return await self._call(lambda: self._bucket.history(key))

    async def create(self, key: str, value: bytes) -> int:
        """As the port says."""
        return await self._write(lambda: self._bucket.create(key, value))

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """As the port says."""
        return await self._write(lambda: self._bucket.update(key, value, revision))

    async def put(self, key: str, value: bytes) -> int:
        """As the port says."""
        return await self._call(lambda: self._bucket.put(key, value))

    async def delete(self, key: str) -> None:
        """As the port says."""
        await self._call(lambda: self._bucket.delete(key))

    async def purge(self, key: str, *, revision: int | None = None) -> None:
        """As the port says."""
        await self._call(lambda: self._bucket.purge(key, revision=revision))

    @asynccontextmanager
    async def watch(self, *, history: bool = False) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """As the port says."""
        async with self._bucket.watch(history=history) as events:
            yield self._heard(events)

    async def _heard(self, events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
        async for event in events:
            await self._hears.wait()
            yield event

    async def _call(self, call: Callable[[], Awaitable[Result]]) -> Result:
        await self._acts.wait()
        try:
            return await call()
        finally:
            await self._acts.wait()

    async def _write(self, write: Callable[[], Awaitable[int]]) -> int:
        loss, self._loss = self._loss, None
        if loss is None:
            return await self._call(write)
        if loss is Loss.LATE:
            self._late.append(write)
        if loss is Loss.APPLIED:
            await self._call(write)
        for _ in range(NOTICED_TURNS):
            await asyncio.sleep(0)
        await self._acts.wait()
        raise WriteUncertain("the reply was lost")
