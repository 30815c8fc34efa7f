"""The bucket's history, read while it is written: a long run outlives the retention of its first jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from reverie_launcher.chaos.evidence import History
from reverie_launcher.chaos.nats_wire import NatsWire, WireLost, read_revisions

#: Pause between two looks; far below the retention.
READ_S = 2.0
TRIES = 20


class Archive:
    """Every revision that was ever seen in the bucket, by job and in order."""

    def __init__(self, port: Callable[[], int]) -> None:
        self.history: History = {}
        self._port = port
        self._read_to = 0

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep up while the context is open."""
        task = asyncio.create_task(self._stay(), name="archive")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def read_on(self) -> None:
        """Read what has been written since; WireLost if that is not possible now."""
        wire = await NatsWire.open(self._port())
        try:
            async for reaches, revisions in read_revisions(wire, after=self._read_to):
                for revision in revisions:
                    self.history.setdefault(revision.job.id, []).append(revision)
                self._read_to = reaches
        except msgspec.MsgspecError as error:  # JetStream answers before the stream is there again
            raise WireLost(str(error)) from None
        finally:
            await wire.close()

    async def read_all(self) -> History:
        """Everything up to now, in spite of what was disturbed a moment ago."""
        for _ in range(TRIES):
            with contextlib.suppress(WireLost):
                await self.read_on()
                return self.history
            await asyncio.sleep(0.5)
        raise RuntimeError("the bucket's history cannot be read")

    async def _stay(self) -> None:
        while True:
            with contextlib.suppress(WireLost):
                await self.read_on()
            await asyncio.sleep(READ_S)
