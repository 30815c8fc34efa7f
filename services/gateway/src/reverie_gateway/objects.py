"""Stored objects as HTTP answers: whole or in part, with validators, never a half-sent surprise at the start."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from litestar.response import Stream

from reverie_gateway.uses import Uses
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_storage.port import Storage, StorageUnavailable, StoredObject

STORAGE_RETRY_S = 2.0
_RANGE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


class Span(msgspec.Struct, frozen=True):
    """Bytes `start` (included) to `stop` (excluded) of an object."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.stop - self.start


class Objects:
    """Reads of the store, with its failures as errors for clients."""

    def __init__(self, storage: Storage, *, uses: Uses) -> None:
        self._storage = storage
        self._uses = uses

    async def stat(self, key: str) -> StoredObject:
        """The object's properties; `not_found` or `storage_unavailable`."""
        async with available():
            found = await self._storage.stat(key)
        if found is None:
            raise ReverieError(ErrorCode.NOT_FOUND, "there is no such object")
        return found

    async def stream(
        self, found: StoredObject, span: Span, *, headers: Mapping[str, str], status_code: int = 200
    ) -> Stream:
        """An answer with these bytes; `storage_unavailable` if the first of them cannot be read."""
        chunks = self._storage.read(found.key, start=span.start, stop=span.stop)
        async with available():
            try:
                first = await anext(chunks, b"")
            except StorageUnavailable:
                await self.stat(found.key)  # whoever knows it from a record may ask for what is gone
                raise
        self._uses.note(found)
        return Stream(
            _chain(first, chunks),
            status_code=status_code,
            media_type=found.content_type,
            headers={**headers, **body_headers(found, span)},
        )

    async def chunks(self, found: StoredObject) -> AsyncIterator[bytes]:
        """All bytes of an object; `storage_unavailable`."""
        self._uses.note(found)
        async with available():
            async for chunk in self._storage.read(found.key, start=0, stop=found.size_bytes):
                yield chunk


def body_headers(found: StoredObject, span: Span) -> dict[str, str]:
    """What describes the bytes of a span, also where they are not sent (HEAD)."""
    return {
        "Content-Length": str(span.size),
        "Content-Type": found.content_type,
        "X-Content-Type-Options": "nosniff",
    }


def requested_span(range_header: str | None, size: int) -> Span | None:
    """The part that a Range header asks for, None for the whole.

    Malformed and multiple ranges count as absent (RFC 9110 allows it); `range_not_satisfiable` if there is no
    such part.
    """
    match = _RANGE.fullmatch(range_header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
        satisfiable = int(last) > 0 and size > 0
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < int(first):
            return None
        satisfiable = start < size
    if not satisfiable:
        raise ReverieError(ErrorCode.RANGE_NOT_SATISFIABLE, f"the object has {size} bytes")
    return Span(start, stop)


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this validator (weak comparison)."""
    if header is None:
        return False
    names = {name.strip().removeprefix("W/") for name in header.split(",")}
    return "*" in names or etag in names


def header_text(value: Any) -> str:
    """A value as header text: printable ASCII stays, everything else is percent-encoded."""
    return "".join(
        char if " " <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
        for char in str(value)
    )


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


@asynccontextmanager
async def available() -> AsyncIterator[None]:
    """Turn a store that fails into `storage_unavailable`."""
    try:
        yield
    except StorageUnavailable as error:
        raise ReverieError(ErrorCode.STORAGE_UNAVAILABLE, str(error), retry_after=STORAGE_RETRY_S) from error
