"""Answers that are given before the application sees a request, also in place of a WebSocket handshake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar.enums import ScopeType
from litestar.types import Scope, Send

from reverie_gateway.openai_errors import is_openai, openai_error
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode, ReverieError
from reverie_protocol.http_bodies import ErrorBody

Headers = list[tuple[bytes, bytes]]

#: What asks for a token (RFC 6750); the second one goes to who sent one that is not believed.
CHALLENGE = 'Bearer realm="reverie"'
CHALLENGE_AGAIN = f'{CHALLENGE}, error="invalid_token"'


async def refuse(scope: Scope, send: Send, error: ReverieError, *, headers: Headers | None = None) -> None:
    """Answer with `error`, in the shape that all errors have."""
    request_id = str(scope.get("state", {}).get("request_id", ""))
    openai = openai_error(error, error.status) if is_openai(scope["path"]) else None
    body = msgspec.json.encode(
        ErrorBody(detail=error.message, code=error.code, request_id=request_id, error=openai)
    )
    own = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await answer(scope, send, error.status, [*own, *(headers or [])], body)


def unread(status: int, detail: str) -> bytes:
    """The body of an answer to what is no request, or did not come: there is none that could have an id."""
    late = status == ERROR_TRAITS[ErrorCode.REQUEST_TIMEOUT].status
    code = ErrorCode.REQUEST_TIMEOUT if late else ErrorCode.INVALID_MESSAGE
    return msgspec.json.encode(ErrorBody(detail=detail, code=code, request_id=""))


def unauthenticated(*, again: bool) -> tuple[ReverieError, Headers]:
    """The same words whatever was wrong: the log has the reason."""
    error = ReverieError(ErrorCode.UNAUTHENTICATED, "a valid token is needed: Authorization: Bearer <token>")
    return error, [(b"www-authenticate", (CHALLENGE_AGAIN if again else CHALLENGE).encode())]


async def answer(
    scope: Scope, send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> None:
    """An HTTP answer, also in place of a WebSocket handshake (an extension that uvicorn offers)."""
    kind = "websocket.http.response" if scope["type"] == ScopeType.WEBSOCKET else "http.response"
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    start: Any = {"type": f"{kind}.start", "status": status, "headers": headers}
    await send(start)
    rest: Any = {"type": f"{kind}.body", "body": body, "more_body": False}
    await send(rest)
