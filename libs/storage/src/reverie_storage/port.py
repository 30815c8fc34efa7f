"""The storage port: whole objects under keys, written once, read in ranges; and small named things that expire.

Every adapter promises, and `tests/test_storage_conformance.py` checks on each:

* A write is atomic and durable when it returns: a reader sees all of an object or none.
* An object's key is the hash of its content.  Putting the same content again is harmless, and counts as a use.
* A named thing belongs to one owner and expires; from that moment on nobody finds it, swept or not.
* `delete(..., unless_used_since=t)` leaves an object that was put or touched after `t`.
* A key or a name never reaches outside the store, whatever it is made of.
* What the store cannot do now is `StorageUnavailable` with a reason that names no path and no secret.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

#: What is stored, by its media type.  Nothing that a browser would run; what is of no known type is bytes.
EXTENSIONS: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
    "image/gif": "gif",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/flac": "flac",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "model/gltf-binary": "glb",
    "application/json": "json",
    "text/plain": "txt",
    "application/octet-stream": "bin",
}
CONTENT_TYPES: Final = {extension: media for media, extension in EXTENSIONS.items()}
_CONTENT_KEY = re.compile(r"[0-9a-f]{64}\.([a-z0-9]{1,8})")


class StorageUnavailable(Exception):
    """The store cannot be read or written now (disk full, not mounted, no permission, no connection)."""


class StoredObject(msgspec.Struct, frozen=True):
    """What is known of an object without reading it; times in seconds since the epoch, size in bytes.

    `used_at` is when it was last put or touched; a single look (`stat`) may know less of it than the list.
    """

    key: str
    size_bytes: int
    content_type: str
    created_at: float
    used_at: float = 0.0

    @property
    def etag(self) -> str:
        """Strong validator: a content-addressed key says it all."""
        return f'"{self.key.partition(".")[0]}"'


class Shelf(StrEnum):
    """What kind of thing a name names; the same name on two shelves is two things."""

    TEXT = "text"
    UPLOAD = "upload"
    THUMBNAIL = "thumbnail"

    @property
    def ttl_s(self) -> float:
        """Seconds for which a thing on this shelf is found."""
        return TTL_S[self]


TTL_S: Final = {Shelf.TEXT: 300.0, Shelf.UPLOAD: 300.0, Shelf.THUMBNAIL: 7 * 86_400.0}


class Name(msgspec.Struct, frozen=True):
    """Where a named thing lies; owner and key may be any text."""

    shelf: Shelf
    owner: str
    key: str


class NamedThing(msgspec.Struct, frozen=True, array_like=True):
    """A small thing under a name, read and written whole; times in seconds since the epoch."""

    key: str
    content: bytes
    content_type: str
    created_at: float
    expires_at: float

    @property
    def etag(self) -> str:
        """Strong validator: the content behind a name may change."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


class Place(msgspec.Struct, frozen=True):
    """Where something named lies in the store, as a sweeper sees it: without its name."""

    path: str
    created_at: float


class Storage(Protocol):
    """Objects by key, and small things by name; `open_storage` makes the one that the settings choose."""

    @property
    def provider(self) -> str:
        """Name of the kind of store, for health reports."""

    async def put(self, content: bytes, *, content_type: str) -> str:
        """Store under the key derived from the content (`content_key`); returns that key."""

    async def put_file(self, path: Path, *, content_type: str) -> str:
        """`put` of a file's content, without holding it in memory; the file stays."""

    async def stat(self, key: str) -> StoredObject | None:
        """The object's properties; None if there is none, or the key is none of ours."""

    def read(self, key: str, *, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes `start` (included) to `stop` (excluded) in chunks; StorageUnavailable if they cannot be read."""

    async def touch(self, key: str) -> bool:
        """Note that the object is used now; False if there is none."""

    async def delete(self, key: str, *, unless_used_since: float | None = None) -> bool:
        """Remove an object, if there is one; False where it stays because it was used after that time."""

    def objects(self) -> AsyncIterator[StoredObject]:
        """All objects, in no order."""

    async def write(self, name: Name, content: bytes, *, content_type: str) -> NamedThing:
        """Put a small thing under a name, in place of what was there; it lives for its shelf's `ttl_s`."""

    async def find(self, name: Name) -> NamedThing | None:
        """What lies under a name; None if nothing does, or not any more."""

    def places(self, shelf: Shelf) -> AsyncIterator[Place]:
        """All things of a shelf, expired ones too."""

    async def open_place(self, place: Place) -> NamedThing | None:
        """The thing at a place, expired or not; None if it has gone or cannot be read."""

    async def clear(self, place: Place, *, unless_used_since: float | None = None) -> bool:
        """Remove what lies at a place; False where something newer than that time lies there."""

    async def check(self) -> None:
        """Prove that the store can be written; StorageUnavailable with the reason otherwise."""

    async def tidy(self, *, before: float) -> None:
        """Remove what writers that crashed before that time have left."""


def content_key(content: bytes, *, content_type: str) -> str:
    """`<sha256>.<extension>`: the same content always has the same key, and a key never changes its content."""
    return f"{hashlib.sha256(content).hexdigest()}.{EXTENSIONS[content_type]}"


def file_key(path: Path, *, content_type: str) -> str:
    """`content_key` of a file; OSError if it cannot be read."""
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}.{EXTENSIONS[content_type]}"


def content_type_of(key: str) -> str | None:
    """Media type of a content-addressed key, None if the key is none."""
    match = _CONTENT_KEY.fullmatch(key)
    return CONTENT_TYPES.get(match.group(1)) if match else None


def is_picture(key: str) -> bool:
    """Whether this is the key of a picture."""
    return (content_type_of(key) or "").startswith("image/")


def url_of(key: str) -> str:
    """Where a gateway serves the object, relative to itself."""
    return f"/storage/{quote(key, safe=':')}"
