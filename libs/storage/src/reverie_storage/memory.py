"""Blobs in this process's memory, for tests: gone when it ends, and no other process sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from msgspec.structs import replace

from reverie_storage.blobs import Blob, require_path
from reverie_storage.keyed import KeyedStorage
from reverie_storage.port import StorageUnavailable


class MemoryStorage(KeyedStorage):
    """A store that is as good as any other, for as long as the process lives."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(MemoryBlobs(now=now), now=now)


class MemoryBlobs:
    """See `Blobs`."""

    provider = "memory"

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._held: dict[str, tuple[Blob, bytes]] = {}

    async def write(self, path: str, content: bytes | Path, *, content_type: str) -> None:
        """See `Blobs.write`."""
        kept = await asyncio.to_thread(content.read_bytes) if isinstance(content, Path) else bytes(content)
        now = self._now()
        self._held[require_path(path)] = (Blob(path, len(kept), now, now), kept)

    async def stat(self, path: str) -> Blob | None:
        """See `Blobs.stat`."""
        held = self._held.get(require_path(path))
        return held[0] if held else None

    async def read(self, path: str, *, start: int, stop: int) -> bytes:
        """See `Blobs.read`."""
        held = self._held.get(require_path(path))
        if held is None:
            raise StorageUnavailable("no such object")
        return held[1][start:stop]

    async def read_whole(self, path: str) -> bytes | None:
        """See `Blobs.read_whole`."""
        held = self._held.get(require_path(path))
        return held[1] if held else None

    async def touch(self, path: str, *, size_bytes: int | None = None) -> bool:
        """See `Blobs.touch`."""
        held = self._held.get(require_path(path))
        if held is None or size_bytes not in (None, len(held[1])):
            return False
        self._held[path] = (replace(held[0], used_at=self._now()), held[1])
        return True

    async def delete(self, path: str, *, unless_used_since: float | None) -> bool:
        """See `Blobs.delete`."""
        held = self._held.get(require_path(path))
        if held is not None and unless_used_since is not None and held[0].used_at >= unless_used_since:
            return False
        self._held.pop(path, None)
        return True

    async def walk(self, folder: str) -> AsyncIterator[Blob]:
        """See `Blobs.walk`."""
        prefix = f"{folder}/" if folder else ""
        for path, (blob, _) in tuple(self._held.items()):
            if path.startswith(prefix):
                yield blob

    async def check(self) -> None:
        """See `Blobs.check`; memory can always be written."""

    async def tidy(self, *, before: float) -> None:
        """See `Blobs.tidy`; a crash leaves nothing."""
