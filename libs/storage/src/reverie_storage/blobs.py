"""What a store has to be able to do with bytes, so that `KeyedStorage` can make a `Storage` of it.

Paths are made by `KeyedStorage` alone: lower-case segments of letters and digits joined by slashes, and at most
one extension.  An adapter refuses every other path, so that even a mistake above cannot name anything
outside its store.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

_PATH: Final = re.compile(r"[a-z0-9]+(/[a-z0-9]+)*(\.[a-z0-9]+)?")


class Blob(msgspec.Struct, frozen=True):
    """Some bytes at a path; times in seconds since the epoch."""

    path: str
    size_bytes: int
    created_at: float
    used_at: float


class Blobs(Protocol):
    """Bytes at paths.  Each method raises StorageUnavailable where the store cannot be used."""

    @property
    def provider(self) -> str:
        """Name of the kind of store."""

    async def write(self, path: str, content: bytes | Path, *, content_type: str) -> None:
        """Put bytes, or a file's content, in place of what is there: atomic, durable on return."""

    async def stat(self, path: str) -> Blob | None:
        """What is known of the blob; None if there is none."""

    async def read(self, path: str, *, start: int, stop: int) -> bytes:
        """Bytes `start` (included) to `stop` (excluded), or fewer at the end of the blob."""

    async def read_whole(self, path: str) -> bytes | None:
        """All bytes of a small blob; None if there is none."""

    async def touch(self, path: str, *, size_bytes: int | None = None) -> bool:
        """Note a use now; False if there is no such blob, or not of that size."""

    async def delete(self, path: str, *, unless_used_since: float | None) -> bool:
        """Remove the blob; False where it stays because it was written or touched after that time."""

    def walk(self, folder: str) -> AsyncIterator[Blob]:
        """All blobs below a folder (`""` is everything), in no order."""

    async def check(self) -> None:
        """Prove that bytes can be written."""

    async def tidy(self, *, before: float) -> None:
        """Remove what writers that crashed before that time have left."""


def require_path(path: str) -> str:
    """The path; ValueError if it is none of ours."""
    if _PATH.fullmatch(path) is None:
        raise ValueError("not a path of the store")
    return path
