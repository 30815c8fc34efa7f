"""Reading a JSON request body within its bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from litestar.exceptions import InternalServerException

from reverie_gateway.identity import HttpRequest
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.parsing import decode_json

#: Largest body of a JSON endpoint, in bytes; more is refused before it is in memory.
MAX_BODY_BYTES: Final = 1 << 20

Reader = Callable[[HttpRequest], Awaitable[bytes]]


async def _whole(request: HttpRequest) -> bytes:
    return await request.body()


async def read_bounded(request: HttpRequest) -> bytes:
    """The body of a handler that takes larger ones of other types; `payload_too_large` beyond `MAX_BODY_BYTES`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ReverieError(ErrorCode.PAYLOAD_TOO_LARGE, "the request body is too large")
    return bytes(body)


async def read_json(request: HttpRequest, *, read: Reader = _whole) -> object:
    """The decoded body; `unsupported_media_type`, `payload_too_large`, `invalid_json` or `invalid_message`.

    `read` is for handlers without the usual limit.  A body without a Content-Type counts as JSON, since simple
    scripts send none.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type != "application/json" and not media_type.endswith("+json"):
        raise ReverieError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "send the body as JSON with the header Content-Type: application/json",
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise ReverieError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"bodies with Content-Encoding {coding[:40]} are not read; send the body as it is",
        )
    try:
        body = await read(request)
    except InternalServerException:
        # What the framework says of a client that left; nobody reads the answer.
        raise ReverieError(ErrorCode.INVALID_JSON, "the body was broken off") from None
    if not body.strip():
        raise ReverieError(ErrorCode.INVALID_JSON, "the body is empty; send a JSON object")
    # A large one away from the event loop: it has pictures in it.
    return await asyncio.to_thread(decode_json, body) if len(body) > MAX_BODY_BYTES else decode_json(body)
