"""uvicorn's own WebSocket protocol, with the transport laid open to the application as an ASGI extension.

Everything up to here (handshake, pings, messages that come in, the closing handshake) stays uvicorn's.  Only what
goes out in numbers goes around it: frames that are complete already are written to the transport as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from reverie_gateway.mailbox import Mailbox
from reverie_protocol.errors import CloseCode

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
    from websockets.frames import Frame

EXTENSION: Final = "reverie.wire"

#: Bytes that the system may hold unsent for one socket; beyond it the client counts as congested, and what waits
#: with us can still be replaced by something newer.
UNSENT_BYTES: Final = 128 << 10
#: Unsent bytes beyond which a client that asks without reading gets no more pongs.
MAX_PONG_BYTES: Final = 16 << 10
#: TCP_NOTSENT_LOWAT: Linux and macOS have it.
_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)
#: No file has this number: writing to it fails at once.
NO_DESCRIPTOR: Final = -1
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


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

    `descriptor` is for who writes the same frames to many: `os.write` to it is what the transport would do, but for
    the questions that it asks first and this number has answered.  It is the socket's own while the transport holds
    nothing and neither side has ended the conversation, else `NO_DESCRIPTOR`; what it does not take is for `write`.
    """

    # Also uvicorn's: the dictionary of so many attributes would be a twentieth of an idle socket's memory.
    __slots__ = (
        "_close_sent",
        "_closing",
        "_own_descriptor",
        "app",
        "app_state",
        "asgi_version",
        "client",
        "close_timeout",
        "close_timer",
        "config",
        "congested",
        "conn",
        "connections",
        "curr_msg_data_type",
        "default_headers",
        "descriptor",
        "disconnected",
        "frames",
        "handshake_complete",
        "handshake_initiated",
        "initial_response",
        "last_ping_rtt",
        "logger",
        "loop",
        "on_relief",
        "pending_ping_payload",
        "ping_interval",
        "ping_sent_at",
        "ping_timeout",
        "ping_timer",
        "pong_timer",
        "queue",
        "read_paused",
        "request",
        "response",
        "root_path",
        "scheme",
        "scope",
        "server",
        "tasks",
        "transport",
        "writable",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.congested = False
        self.on_relief: Callable[[], None] | None = None
        self.descriptor = self._own_descriptor = NO_DESCRIPTOR
        self._closing: asyncio.Task[None] | None = None
        super().__init__(*args, **kwargs)
        self.queue: Mailbox[ASGIReceiveEvent] = Mailbox()  # type: ignore[assignment]  # all of it that is used

    @property
    def close_sent(self) -> bool:
        """Whether nothing may follow; uvicorn sets it."""
        return self._close_sent

    @close_sent.setter
    def close_sent(self, sent: bool) -> None:
        self._close_sent = sent
        if sent:
            self._end_writing()

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
            self._own_descriptor = self.descriptor = _descriptor(self.loop, self.transport)

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
        self._end_writing()
        self.transport.abort()

    def pause_writing(self) -> None:
        """The system's buffers are full."""
        self.congested = True
        self.descriptor = NO_DESCRIPTOR
        super().pause_writing()

    def resume_writing(self) -> None:
        """The system has taken everything."""
        self.congested = False
        self.descriptor = self._own_descriptor
        super().resume_writing()
        if self.on_relief is not None:
            self.on_relief()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, by whichever side; the socket is closed, and its number free for another, after this."""
        self._end_writing()
        self.on_relief = None
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client has ended its half; the transport closes after this."""
        self._end_writing()
        super().eof_received()

    def shutdown(self) -> None:
        """The server ends; uvicorn writes a close frame."""
        self._end_writing()
        super().shutdown()

    def handle_close(self, event: Frame) -> None:
        """The client closes; uvicorn answers with a close frame."""
        self._end_writing()
        super().handle_close(event)

    def data_received(self, data: bytes) -> None:
        """What the client sends; uvicorn waits for ever where the request is none."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_complete:
            self._refuse()

    def handle_parser_exception(self) -> None:
        """What came is no WebSocket; before the handshake there is no close frame to answer with."""
        self._end_writing()
        if self.conn.close_sent is None:
            self._refuse()
        else:
            super().handle_parser_exception()

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_BAD_REQUEST)
            self.transport.close()

    def handle_ping(self) -> None:
        """Answer a ping, unless the answers to earlier ones are not read either."""
        if self.transport.get_write_buffer_size() > MAX_PONG_BYTES:
            self.conn.data_to_send()
            return
        super().handle_ping()

    def _end_writing(self) -> None:
        self.descriptor = self._own_descriptor = NO_DESCRIPTOR

    async def _close(self, code: CloseCode) -> None:
        with contextlib.suppress(ClientDisconnected):
            await self.send({"type": "websocket.close", "code": code.code, "reason": code.reason})


def _descriptor(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> int:
    """The socket's own, where the transport writes at once to it what it is given, and as it is."""
    plain = transport.get_extra_info("sslcontext") is None
    if not plain or os.name != "posix" or not isinstance(loop, asyncio.SelectorEventLoop):
        return NO_DESCRIPTOR
    return int(transport.get_extra_info("socket").fileno())
