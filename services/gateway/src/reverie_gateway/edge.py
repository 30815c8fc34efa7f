"""What holds for every request before any route sees it: request ids, foreign pages, CORS.

A plain ASGI layer around the whole application, so that unknown paths are covered too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.origin import SAFE_METHODS, OriginRule, header
from reverie_gateway.refusal import Headers, answer, refuse
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_runtime.clock import Clock

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Headers of ours that a page of an allowed origin may read.
EXPOSED: Final = (
    "ETag, Location, Retry-After, X-Backend, X-Job-Id, X-LCM-Image-Key, X-Mode, X-Request-Id, X-Seed, "
    "X-SR-Format, X-SR-Magnitude, X-SR-Model, X-SR-Passes, X-SR-Scale-Per-Pass, X-Storage-Created-At, "
    "X-Storage-Key, X-SuperRes"
)
#: Headers that such a page may send: ours, and those that OpenAI's JavaScript client always sends.
ACCEPTED: Final = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, X-Request-Id, OpenAI-Organization, "
    "OpenAI-Project, X-Stainless-Arch, X-Stainless-Helper-Method, X-Stainless-Lang, X-Stainless-OS, "
    "X-Stainless-Package-Version, X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version, "
    "X-Stainless-Timeout"
)
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", ACCEPTED.encode()),
    (b"access-control-max-age", b"600"),
)
#: ASGI messages that begin an answer.
_STARTS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class Edge:
    """Gives each request an id and turns away pages that may not drive this gateway."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        rule: OriginRule,
        metrics: GatewayMetrics,
        clock: Clock,
        new_request_id: Callable[[], str],
    ) -> None:
        self._app = app
        self._rule = rule
        self._metrics = metrics
        self._clock = clock
        self._new_request_id = new_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers: Headers = list(scope["headers"])
        given = header(headers, b"x-request-id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else self._new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        added: Headers = [(b"x-request-id", request_id.encode())]
        refusal = self._refusal(scope, headers)
        if refusal is None:
            added += self._cors(headers)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if refusal is not None:
                error = ReverieError(ErrorCode.FORBIDDEN, refusal)
                await refuse(scope, send, error, headers=added)
            elif _is_preflight(scope, headers):
                await answer(scope, send, 204, [*added, *_PREFLIGHT], b"")
            else:
                del headers  # a socket may stay for days
                await self._pass_on(scope, receive, send, added)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, added: Headers) -> None:
        """Let the application answer, with our headers, and count the answer."""
        started, status = self._clock.monotonic(), 0

        async def pass_back(message: Message) -> None:
            nonlocal status
            if message["type"] in _STARTS:
                message["headers"] = [*message.get("headers", []), *added]
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, pass_back)
        if status:
            route = str(scope.get("path_template") or "unknown")
            self._metrics.answered(route, status, self._clock.monotonic() - started)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        given = header(headers, b"host")
        host = given or ""
        server = scope.get("server")
        # No Host at all is HTTP/1.0: no browser speaks it, so no name was re-pointed.
        if given is not None and not self._rule.allows_host(host, server[0] if server else None):
            return "this host name is not one of the gateway's; gateway.allowed_hosts names more"
        origin = header(headers, b"origin")
        changes = _method(scope) not in SAFE_METHODS
        if origin is not None and changes and not self._rule.allows_origin(origin, host):
            return "pages of this origin may not use the gateway; gateway.cors_origins allows more"
        return None

    def _cors(self, headers: Headers) -> Headers:
        origin = header(headers, b"origin")
        host = header(headers, b"host") or ""
        if origin is None or not self._rule.allows_origin(origin, host):
            return [(b"vary", b"Origin")]
        return [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED.encode()),
        ]


def _method(scope: Scope) -> str:
    """The method of an HTTP request; a WebSocket handshake counts as one that changes things."""
    return str(scope.get("method", "WEBSOCKET"))


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return _method(scope) == "OPTIONS" and header(headers, b"access-control-request-method") is not None
