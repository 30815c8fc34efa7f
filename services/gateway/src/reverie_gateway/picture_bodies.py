"""JSON bodies that hold pictures as base64: larger than others, each and all together within a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from reverie_gateway.body import read_json
from reverie_gateway.identity import HttpRequest
from reverie_protocol.errors import ErrorCode, ReverieError

#: Bodies of the largest size that may be in memory at once; who comes later is told to come again.
AT_ONCE: Final = 8
#: Commas and opening brackets in one body: pictures have next to none, while millions of small values would keep
#: the event loop busy for minutes.
MAX_VALUES: Final = 10_000
_RETRY_S: Final = 2.0
_MIB: Final = 1 << 20


class PictureBodies:
    """Counts the bytes of such bodies from their arrival until their pictures are kept."""

    def __init__(self, *, max_mb: float) -> None:
        self._max_bytes = int(max_mb * _MIB)
        self._held_bytes = 0

    @asynccontextmanager
    async def decoded(self, request: HttpRequest) -> AsyncIterator[object]:
        """The decoded body, counted while the context is open.

        The errors of `read_json`; `payload_too_large` for one alone, also for one of too many values;
        `rate_limited` for too many at once.
        """
        body = bytearray()
        try:
            yield await read_json(request, read=partial(self._read, into=body))
        finally:
            self._held_bytes -= len(body)

    async def _read(self, request: HttpRequest, *, into: bytearray) -> bytes:
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:18]) > self._max_bytes:
            raise self._too_large()
        async for chunk in request.stream():
            into += chunk
            self._held_bytes += len(chunk)
            if len(into) > self._max_bytes:
                raise self._too_large()
            if self._held_bytes > AT_ONCE * self._max_bytes:
                raise ReverieError(
                    ErrorCode.RATE_LIMITED, "too many pictures arrive at once", retry_after=_RETRY_S
                )
        if sum(map(into.count, (b",", b"[", b"{"))) > MAX_VALUES:
            raise ReverieError(
                ErrorCode.PAYLOAD_TOO_LARGE, f"the body has more than {MAX_VALUES} values, which is the limit"
            )
        return bytes(into)

    def _too_large(self) -> ReverieError:
        limit = f"{self._max_bytes / _MIB:g} MiB"
        return ReverieError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"the body has more than {limit}, which is the limit"
        )
