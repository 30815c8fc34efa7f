"""The storage port: whole objects under keys, written once, read in ranges.

Every adapter promises: `put` is atomic and durable when it returns (a reader sees all of an object or none);
putting the same content again is harmless; a key never reaches outside the store, whatever it is made of.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

EXTENSIONS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "text/plain": "txt"}
CONTENT_TYPES = {extension: media for media, extension in EXTENSIONS.items()}
_CONTENT_KEY = re.compile(r"[0-9a-f]{64}\.([a-z0-9]{1,8})")


class StorageUnavailable(Exception):
    """The store cannot be read or written now (disk full, not mounted, no permission)."""


class StoredObject(msgspec.Struct, frozen=True):
    """What is known of an object without reading it; `created_at` in seconds since the epoch, size in bytes."""

    key: str
    size_bytes: int
    content_type: str
    created_at: float

    @property
    def etag(self) -> str:
        """Strong validator: a content-addressed key says it all."""
        return f'"{self.key.partition(".")[0]}"'


class Storage(Protocol):
    """Objects by key; `FilesystemStorage` is the adapter on a disk that all services share."""

    @property
    def provider(self) -> str:
        """Name of the kind of store, for health reports."""

    async def put(self, content: bytes, *, content_type: str) -> str:
        """Store under the key derived from the content (`content_key`); returns that key."""

    async def stat(self, key: str) -> StoredObject | None:
        """The object's properties; None if there is none, or the key is none of ours."""

    def read(self, key: str, *, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes `start` (included) to `stop` (excluded) in chunks; StorageUnavailable if they cannot be read."""

    async def check(self) -> None:
        """Prove that the store can be written; StorageUnavailable with the reason otherwise."""


def content_key(content: bytes, *, content_type: str) -> str:
    """`<sha256>.<extension>`: the same content always has the same key, and a key never changes its content."""
    return f"{hashlib.sha256(content).hexdigest()}.{EXTENSIONS[content_type]}"


def content_type_of(key: str) -> str | None:
    """Media type of a content-addressed key, None if the key is none."""
    match = _CONTENT_KEY.fullmatch(key)
    return CONTENT_TYPES.get(match.group(1)) if match else None


def url_of(key: str) -> str:
    """Where a gateway serves the object, relative to itself."""
    return f"/storage/{key}"
