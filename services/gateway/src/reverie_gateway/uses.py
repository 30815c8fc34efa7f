"""Which objects are read, so that the store knows what was not used for longest."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import structlog

from reverie_runtime.clock import Clock
from reverie_storage.port import Storage, StorageUnavailable, StoredObject

#: A use within this time of the last one is not noted again, in seconds.
NOTED_S: Final = 3600.0
#: Objects whose last use is remembered; one that is forgotten costs a note too many.
REMEMBERED: Final = 4096
#: Notes under way at once; beyond them a use goes unnoted.
AT_ONCE: Final = 8

log = structlog.get_logger(__name__)


class Uses:
    """Notes uses in the background, seldom for each object."""

    def __init__(self, storage: Storage, *, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._noted: OrderedDict[str, float] = OrderedDict()
        self._notes: set[asyncio.Task[None]] = set()

    def note(self, found: StoredObject) -> None:
        """The object is being read."""
        now = self._clock.time()
        last = max(found.used_at, self._noted.get(found.key, 0.0))
        if now - last < NOTED_S or len(self._notes) >= AT_ONCE:
            return
        self._noted[found.key] = now
        self._noted.move_to_end(found.key)
        if len(self._noted) > REMEMBERED:
            self._noted.popitem(last=False)
        task = asyncio.create_task(self._touch(found.key), name="storage-use")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def close(self) -> None:
        """Give up what is being noted; idempotent."""
        for task in self._notes:
            task.cancel()
        await asyncio.gather(*self._notes, return_exceptions=True)

    async def _touch(self, key: str) -> None:
        try:
            await self._storage.touch(key)
        except StorageUnavailable as error:
            log.info("a use was not noted", reason=str(error))
