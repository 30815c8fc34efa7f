"""uvicorn's own WebSocket protocol, with the transport laid open to the application as an ASGI extension.

Everything up to here (handshake, pings, messages that come in, the closing handshake) stays uvicorn's.  Only what
goes out in numbers goes around it: frames that are complete already are written to the transport as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from reverie_protocol.errors import CloseCode

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

EXTENSION: Final = "reverie.wire"

#: Bytes that the system may hold unsent for one socket; beyond it the client counts as congested, and what waits
#: with us can still be replaced by something newer.
UNSENT_BYTES: Final = 128 << 10
#: Unsent bytes beyond which a client that asks without reading gets no more pongs.
MAX_PONG_BYTES: Final = 16 << 10
#: TCP_NOTSENT_LOWAT: Linux and macOS have it.
_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def wire_of(scope: Mapping[str, Any]) -> Wire:
    """The wire of a connection; RuntimeError under a server that was not given it."""
    wire = (scope.get("extensions") or {}).get(EXTENSION)
    if wire is None:
        raise RuntimeError("serve the gateway with uvicorn and ws=reverie_gateway.wire.Wire")
    return cast(Wire, wire)


class Wire(WebSocketsSansIOProtocol):
    """One connection.

    `congested` says that the client does not take what is sent at the moment; `on_relief` is called when that is
    over.  Both, `write` and `close` are for one user, and only once the handshake is accepted.
    """

    congested = False
    on_relief: Callable[[], None] | None = None
    _closing: asyncio.Task[None] | None = None

    async def run_asgi(self) -> None:
        """Run the application, which finds this object among the extensions of its scope."""
        extensions = cast(dict[str, Any], self.scope["extensions"])
        extensions[EXTENSION] = self
        # With no water to hold, the transport says at once when the system takes no more, and when it does again.
        self.transport.set_write_buffer_limits(high=0)
        if _NOTSENT_LOWAT is not None:
            raw = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # the client is gone, or this is no TCP
                raw.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_BYTES)
        await super().run_asgi()

    async def send(self, message: ASGISendEvent) -> None:
        """The application's own messages: accept, close."""
        await super().send(message)
        if message["type"] == "websocket.accept":
            # Answered.  Of an idle socket's memory the handshake would be a fifth.
            self.request.headers.clear()
            self.response.headers.clear()
            self.scope["headers"] = []

    def write(self, frames: bytes) -> None:
        """Send complete frames; nothing once either side has ended the conversation."""
        if not (self.close_sent or self.transport.is_closing()):
            self.transport.write(frames)

    def close(self, code: CloseCode) -> None:
        """Begin the closing handshake, behind all that was written."""
        if self._closing is None:
            self._closing = self.loop.create_task(self._close(code))

    def abort(self) -> None:
        """End the connection at once: what was written and not sent is lost."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """The system's buffers are full."""
        self.congested = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """The system has taken everything."""
        self.congested = False
        super().resume_writing()
        if self.on_relief is not None:
            self.on_relief()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, by whichever side."""
        self.on_relief = None
        super().connection_lost(exc)

    def handle_ping(self) -> None:
        """Answer a ping, unless the answers to earlier ones are not read either."""
        if self.transport.get_write_buffer_size() > MAX_PONG_BYTES:
            self.conn.data_to_send()
            return
        super().handle_ping()

    async def _close(self, code: CloseCode) -> None:
        with contextlib.suppress(ClientDisconnected):
            await self.send({"type": "websocket.close", "code": code.code, "reason": code.reason})
