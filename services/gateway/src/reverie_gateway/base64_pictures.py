"""Stored pictures as base64 inside JSON, sent as they are read: no answer holds a whole picture in memory."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from typing import Final

from reverie_gateway.objects import Objects
from reverie_storage.port import StoredObject

_GROUP: Final = 3  # bytes that become whole characters


async def encoded(objects: Objects, found: StoredObject) -> AsyncIterator[bytes]:
    """The base64 text of an object, in pieces."""
    rest = b""
    async for chunk in objects.chunks(found):
        data = rest + chunk
        whole = len(data) - len(data) % _GROUP
        rest = data[whole:]
        yield b64encode(data[:whole])
    if rest:
        yield b64encode(rest)


async def filled(
    objects: Objects,
    document: bytes,
    hole: bytes,
    pictures: Sequence[StoredObject],
    *,
    before: bytes,
    after: bytes,
) -> AsyncIterator[bytes]:
    """A JSON document with pictures inside its first `hole`: `[]`, or `""` for a single one.

    Each picture stands between `before` and `after`, with commas between them.
    """
    head, _, tail = document.partition(hole)
    yield head + hole[:-1]
    for number, found in enumerate(pictures):
        yield (b"," if number else b"") + before
        async for piece in encoded(objects, found):
            yield piece
        yield after
    yield hole[-1:] + tail
