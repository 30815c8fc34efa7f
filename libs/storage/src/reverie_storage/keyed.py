"""A `Storage` over any `Blobs`: keys and names become paths, small things carry their expiry with them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import msgspec

from reverie_storage.blobs import Blob, Blobs
from reverie_storage.port import (
    Name,
    NamedThing,
    Place,
    Shelf,
    StorageUnavailable,
    StoredObject,
    content_key,
    content_type_of,
    file_key,
)

CHUNK_BYTES: Final = 256 * 1024
#: Largest content of a named thing, in bytes: it is read whole.
MAX_NAMED_BYTES: Final = 4 << 20
_NAMED: Final = "named"

_decoder = msgspec.msgpack.Decoder(NamedThing)


class KeyedStorage:
    """See `Storage`.  `now` tells the time in seconds since the epoch."""

    def __init__(self, blobs: Blobs, *, now: Callable[[], float] = time.time) -> None:
        self._blobs = blobs
        self._now = now

    @property
    def provider(self) -> str:
        """Name of the kind of store."""
        return self._blobs.provider

    async def put(self, content: bytes, *, content_type: str) -> str:
        """See `Storage.put`."""
        key = content_key(content, content_type=content_type)
        await self._put(key, content, len(content), content_type)
        return key

    async def put_file(self, path: Path, *, content_type: str) -> str:
        """See `Storage.put_file`."""
        key = await asyncio.to_thread(file_key, path, content_type=content_type)
        size_bytes = (await asyncio.to_thread(path.stat)).st_size
        await self._put(key, path, size_bytes, content_type)
        return key

    async def stat(self, key: str) -> StoredObject | None:
        """See `Storage.stat`."""
        if content_type_of(key) is None:
            return None
        blob = await self._blobs.stat(_path(key))
        return None if blob is None else _described(key, blob)

    async def read(self, key: str, *, start: int, stop: int) -> AsyncIterator[bytes]:
        """See `Storage.read`."""
        if content_type_of(key) is None:
            raise StorageUnavailable("no such object")
        while start < stop:
            chunk = await self._blobs.read(_path(key), start=start, stop=min(stop, start + CHUNK_BYTES))
            if not chunk:
                raise StorageUnavailable("the object ended early")
            start += len(chunk)
            yield chunk

    async def touch(self, key: str) -> bool:
        """See `Storage.touch`."""
        return content_type_of(key) is not None and await self._blobs.touch(_path(key))

    async def delete(self, key: str, *, unless_used_since: float | None = None) -> bool:
        """See `Storage.delete`."""
        if content_type_of(key) is None:
            return True
        return await self._blobs.delete(_path(key), unless_used_since=unless_used_since)

    async def objects(self) -> AsyncIterator[StoredObject]:
        """See `Storage.objects`."""
        async for blob in self._blobs.walk(""):
            key = blob.path.rpartition("/")[2]
            if content_type_of(key) is not None and blob.path == _path(key):
                yield _described(key, blob)

    async def write(self, name: Name, content: bytes, *, content_type: str) -> NamedThing:
        """See `Storage.write`; ValueError for what is too large to be read whole."""
        if len(content) > MAX_NAMED_BYTES:
            raise ValueError(f"a named thing has at most {MAX_NAMED_BYTES} bytes")
        now = self._now()
        thing = NamedThing(name.key, content, content_type, now, now + name.shelf.ttl_s)
        await self._blobs.write(
            _path_of_name(name), msgspec.msgpack.encode(thing), content_type="application/msgpack"
        )
        return thing

    async def find(self, name: Name) -> NamedThing | None:
        """See `Storage.find`."""
        thing = await self._open(_path_of_name(name))
        return thing if thing is not None and self._now() < thing.expires_at else None

    async def places(self, shelf: Shelf) -> AsyncIterator[Place]:
        """See `Storage.places`."""
        async for blob in self._blobs.walk(f"{_NAMED}/{shelf}"):
            yield Place(blob.path, blob.created_at)

    async def open_place(self, place: Place) -> NamedThing | None:
        """See `Storage.open_place`."""
        return await self._open(place.path)

    async def clear(self, place: Place, *, unless_used_since: float | None = None) -> bool:
        """See `Storage.clear`."""
        return await self._blobs.delete(place.path, unless_used_since=unless_used_since)

    async def check(self) -> None:
        """See `Storage.check`."""
        await self._blobs.check()

    async def tidy(self, *, before: float) -> None:
        """See `Storage.tidy`."""
        await self._blobs.tidy(before=before)

    async def _put(self, key: str, content: bytes | Path, size_bytes: int, content_type: str) -> None:
        # A file that a crash has cut short has another size, and is written again.
        if not await self._blobs.touch(_path(key), size_bytes=size_bytes):
            await self._blobs.write(_path(key), content, content_type=content_type)

    async def _open(self, path: str) -> NamedThing | None:
        content = await self._blobs.read_whole(path)
        if content is None:
            return None
        try:
            return _decoder.decode(content)
        except msgspec.MsgspecError:
            return None  # of another version, or somebody else's: nothing that we could say anything about


def _path(key: str) -> str:
    return f"{key[:2]}/{key}"


def _path_of_name(name: Name) -> str:
    """A name as a path: its hash, since file systems differ in what they take for one name."""
    digest = hashlib.sha256(msgspec.json.encode((name.owner, name.key))).hexdigest()
    return f"{_NAMED}/{name.shelf}/{digest[:2]}/{digest}"


def _described(key: str, blob: Blob) -> StoredObject:
    return StoredObject(
        key, blob.size_bytes, content_type_of(key) or "", blob.created_at, max(blob.used_at, blob.created_at)
    )
