"""Objects as files, spread over 256 folders by the first byte of their hash.

A file is written beside its place, flushed to the disk and renamed, then the folder is flushed: after a kill -9 or
a power cut an object is there completely or not at all.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from reverie_storage.port import (
    StorageUnavailable,
    StoredObject,
    content_key,
    content_type_of,
)

CHUNK_BYTES = 256 * 1024
PROBE_BYTES = 4096
_TEMPORARY_PREFIX = ".incoming-"


class FilesystemStorage:
    """The store below one folder; several processes, and several machines by a shared mount, may use it."""

    provider = "filesystem"

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, content: bytes, *, content_type: str) -> str:
        """See `Storage.put`."""
        return await asyncio.to_thread(self._put, content, content_type)

    async def stat(self, key: str) -> StoredObject | None:
        """See `Storage.stat`."""
        content_type = content_type_of(key)
        if content_type is None:
            return None
        try:
            status = await asyncio.to_thread(self._path(key).stat)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageUnavailable(_reason(error)) from error
        return StoredObject(key, status.st_size, content_type, status.st_mtime)

    async def read(self, key: str, *, start: int, stop: int) -> AsyncIterator[bytes]:
        """See `Storage.read`."""
        if content_type_of(key) is None:
            raise StorageUnavailable("no such object")
        while start < stop:
            size = min(CHUNK_BYTES, stop - start)
            chunk = await asyncio.to_thread(self._read_at, key, start, size)
            if not chunk:
                raise StorageUnavailable("the object ended early")
            start += len(chunk)
            yield chunk

    async def check(self) -> None:
        """See `Storage.check`."""
        await asyncio.to_thread(self._check)

    def _path(self, key: str) -> Path:
        return self._root / key[:2] / key

    def _put(self, content: bytes, content_type: str) -> str:
        key = content_key(content, content_type=content_type)
        path = self._path(key)
        try:
            if not (path.exists() and path.stat().st_size == len(content)):
                self._make_folder(path.parent)
                self._write(path, content)
        except OSError as error:
            raise StorageUnavailable(_reason(error)) from error
        return key

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _flush_folder(self._root)

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)

    def _read_at(self, key: str, start: int, size: int) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise StorageUnavailable(_reason(error)) from error

    def _check(self) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            # An empty file can be made on a full disk, a written one cannot.
            with tempfile.NamedTemporaryFile(prefix=_TEMPORARY_PREFIX, dir=self._root) as probe:
                probe.write(b"\0" * PROBE_BYTES)
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            raise StorageUnavailable(_reason(error)) from error


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
    """One sentence without a path of the host in it."""
    return f"the store cannot be used: {os.strerror(error.errno) if error.errno else 'I/O error'}"
