"""Blobs as files below one folder, spread over folders by the first byte of their hash.

A file is written beside its place, flushed to the disk and renamed, then the folder is flushed: after a kill -9 or
a power cut a blob is there completely or not at all.  The modification time is that of the write, the access time
that of the last use.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from reverie_storage.blobs import Blob, require_path
from reverie_storage.keyed import KeyedStorage
from reverie_storage.port import StorageUnavailable

PROBE_BYTES: Final = 4096
_INCOMING: Final = ".incoming-"
_OUTGOING: Final = ".outgoing-"

P = ParamSpec("P")
T = TypeVar("T")


class FilesystemStorage(KeyedStorage):
    """The store below one folder; several processes, and several machines by a shared mount, may use it."""

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(FilesystemBlobs(root, now=now), now=now)


class FilesystemBlobs:
    """See `Blobs`."""

    provider = "filesystem"

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self._root = root
        self._now = now

    async def write(self, path: str, content: bytes | Path, *, content_type: str) -> None:
        """See `Blobs.write`."""
        await _in_thread(self._write, self._place(path), content)

    async def stat(self, path: str) -> Blob | None:
        """See `Blobs.stat`."""
        return await _in_thread(self._stat, self._place(path))

    async def read(self, path: str, *, start: int, stop: int) -> bytes:
        """See `Blobs.read`."""
        return await _in_thread(_read_at, self._place(path), start, stop - start)

    async def read_whole(self, path: str) -> bytes | None:
        """See `Blobs.read_whole`."""
        return await _in_thread(_read_whole, self._place(path))

    async def touch(self, path: str, *, size_bytes: int | None = None) -> bool:
        """See `Blobs.touch`."""
        return await _in_thread(self._touch, self._place(path), size_bytes)

    async def delete(self, path: str, *, unless_used_since: float | None) -> bool:
        """See `Blobs.delete`."""
        return await _in_thread(_delete, self._place(path), unless_used_since)

    async def walk(self, folder: str) -> AsyncIterator[Blob]:
        """See `Blobs.walk`; one step in a thread for each folder."""
        folders = [self._root / folder]
        while folders:
            blobs, inner = await _in_thread(self._scan, folders.pop())
            folders += inner
            for blob in blobs:
                yield blob

    async def check(self) -> None:
        """See `Blobs.check`."""
        await _in_thread(self._check)

    async def tidy(self, *, before: float) -> None:
        """See `Blobs.tidy`."""
        await _in_thread(self._tidy, before)

    def _place(self, path: str) -> Path:
        return self._root / require_path(path)

    def _path(self, file: str | Path) -> str:
        return Path(file).relative_to(self._root).as_posix()

    def _blob(self, file: str | Path, status: os.stat_result) -> Blob:
        return Blob(self._path(file), status.st_size, status.st_mtime, _used_at(status))

    def _stat(self, file: Path) -> Blob | None:
        try:
            return self._blob(file, file.stat())
        except FileNotFoundError:
            return None

    def _write(self, file: Path, content: bytes | Path) -> None:
        self._make_folder(file.parent)
        handle, temporary = tempfile.mkstemp(prefix=_INCOMING, dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as target:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, target, 1 << 20)
                else:
                    target.write(content)
                target.flush()
                os.fsync(target.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _flush_folder(file.parent)

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            _flush_folder(new.parent)

    def _touch(self, file: Path, size_bytes: int | None) -> bool:
        try:
            status = file.stat()
            if size_bytes not in (None, status.st_size):
                return False
            os.utime(file, (self._now(), status.st_mtime))
        except (FileNotFoundError, PermissionError):
            return False  # without permission it is as good as absent: a writer puts its own in its place
        return True

    def _scan(self, folder: Path) -> tuple[list[Blob], list[Path]]:
        blobs, folders = [], []
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif not entry.name.startswith("."):
                try:
                    blobs.append(self._blob(entry.path, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
        return blobs, folders

    def _check(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        # An empty file can be made on a full disk, a written one cannot.
        with tempfile.NamedTemporaryFile(prefix=_INCOMING, dir=self._root) as probe:
            probe.write(b"\0" * PROBE_BYTES)
            probe.flush()
            os.fsync(probe.fileno())

    def _tidy(self, before: float) -> None:
        folders = [self._root]
        while folders:
            for entry in _entries(folders.pop()):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.name.startswith((_INCOMING, _OUTGOING)):
                    try:
                        if entry.stat(follow_symlinks=False).st_ctime < before:
                            os.unlink(entry.path)
                    except FileNotFoundError:
                        continue  # its writer has put it in its place meanwhile


def _delete(file: Path, unless_used_since: float | None) -> bool:
    """Remove a file; put aside first, so that a use that comes in between is seen.  False without permission."""
    aside = file.with_name(f"{_OUTGOING}{os.urandom(8).hex()}")
    try:
        if unless_used_since is not None and _used_at(file.stat()) >= unless_used_since:
            return False
        os.rename(file, aside)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False  # somebody else's file must not keep a sweep from the others
    used = unless_used_since is not None and _used_at(aside.stat()) >= unless_used_since
    if used:
        _put_back(aside, file)
    aside.unlink()
    return not used


def _put_back(aside: Path, file: Path) -> None:
    try:
        os.link(aside, file)  # unlike a rename, it leaves alone what was written there meanwhile
    except FileExistsError:
        return


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


def _used_at(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)


def _read_at(file: Path, start: int, size: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


def _read_whole(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do it in a thread; whatever the operating system says against it is StorageUnavailable."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        # One sentence without a path of the host in it.
        reason = os.strerror(error.errno) if error.errno else "I/O error"
        raise StorageUnavailable(f"the store cannot be used: {reason}") from error
