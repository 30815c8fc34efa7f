"""Serve an ASGI application with uvicorn inside a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import uvicorn

from reverie_runtime.http_parser import ErrorJson, http_parser, plain_error
from reverie_runtime.patience import Patience

GRACE_S: Final = 3
#: A peer that takes nothing of what is sent to it for this long is gone; uvicorn alone would wait for ever.
PEER_TIMEOUT_MS: Final = 60_000
#: What is borne of a slow client where nothing else is said; uvicorn alone would bear everything.
PATIENCE: Final = Patience(silence_s=8.0, bytes_per_s=256.0)


class StartError(Exception):
    """The service cannot start; one sentence for the operator."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell when requests are taken."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the lifecycle."""
        yield


def listen(host: str, port: int, *, setting: str) -> socket.socket:
    """A listening socket; StartError naming the setting if the address cannot be had."""
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"port {port} on {host} is taken: choose another {setting}") from None
        reason = error.strerror or str(error)
        raise StartError(f"cannot listen on {host}:{port} ({setting}): {reason}") from None
    # asyncio would set it, but not on a socket that it did not make: small answers waited 40 ms for the peer's ack.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; what is accepted inherits it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT_MS)
    return listener


@contextlib.asynccontextmanager
async def serve_http(
    app: Any,
    *,
    host: str,
    port: int,
    setting: str,
    patience: Patience = PATIENCE,
    error_json: ErrorJson = plain_error,
    **uvicorn_options: Any,
) -> AsyncIterator[tuple[str, int]]:
    """Serve during the block; yields host and port once requests are taken.

    Who does not send his request in time is cut off; WebSockets are refused unless the options bring a protocol.
    """
    listener = listen(host, port, setting=setting)
    address = listener.getsockname()
    options: dict[str, Any] = {
        "timeout_graceful_shutdown": GRACE_S,
        "lifespan": "off",
        "access_log": False,
        "http": http_parser(patience, error_json),
        "ws": "none",
    } | uvicorn_options
    server = _Server(uvicorn.Config(app, log_config=None, **options))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name=f"http {setting}")
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            raise StartError(f"the HTTP server on {host}:{port} ended at once")
        yield address[0], address[1]
    finally:
        ready.cancel()
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()
