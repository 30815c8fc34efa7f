"""Whether the store works: asked regularly in the background, and at once when somebody wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from reverie_protocol.server_messages import StorageHealth
from reverie_runtime.actors import acting
from reverie_runtime.clock import Clock
from reverie_storage.port import Storage, StorageUnavailable

PROBE_INTERVAL_S = 5.0
#: A store that takes longer than this to write an empty file is not usable (a hung mount).
PROBE_TIMEOUT_S = 2.0


class StorageReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of `GET /storage/health`; `reason` is there when something is wrong."""

    ok: bool
    provider: str
    reason: str = ""


class StorageProbe:
    """The latest answer of the store."""

    def __init__(self, storage: Storage, *, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self._report = StorageReport(ok=False, provider=storage.provider, reason="not checked yet")

    @property
    def health(self) -> StorageHealth:
        """The latest answer as `system:status` has it."""
        return StorageHealth(ok=self._report.ok, provider=self._report.provider)

    async def check(self) -> StorageReport:
        """Ask the store now."""
        reason = ""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._storage.check()
        except StorageUnavailable as error:
            reason = str(error)
        except TimeoutError:
            reason = f"the store did not answer within {PROBE_TIMEOUT_S:g} s"
        report = StorageReport(ok=not reason, provider=self._storage.provider, reason=reason)
        changed, self._report = report != self._report, report
        for listener in self._listeners if changed else ():
            listener()
        return report

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when an answer differs from the one before."""
        self._listeners.append(listener)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Check once before entering, then regularly while the context is open."""
        await self.check()
        async with acting(self._round, name="storage-probe", clock=self._clock):
            yield

    async def _round(self) -> None:
        await self._clock.sleep(PROBE_INTERVAL_S)
        await self.check()
