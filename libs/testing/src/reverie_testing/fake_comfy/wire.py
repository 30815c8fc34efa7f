"""HTTP/1.1 and WebSocket on one port over plain asyncio streams: a connection can be broken anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

import h11
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import State
from websockets.server import ServerProtocol

CHUNK = 1 << 16
MAX_BODY = 100 << 20


@dataclass(frozen=True)
class Request:
    """One HTTP request, read whole."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> object:
        """The body; ValueError if it is none."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """One HTTP answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def answer(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, json.dumps(value).encode(), "application/json; charset=utf-8")


NOT_FOUND = Response(404, content_type="application/octet-stream")
TROUBLE = Response(
    500,
    b"500 Internal Server Error\n\nServer got itself in trouble",
    "text/plain; charset=utf-8",
    {"Connection": "close"},
)


class Socket:
    """One WebSocket of a client, server side."""

    def __init__(self, query: dict[str, str], protocol: ServerProtocol, streams: Streams) -> None:
        self.query = query
        self._protocol = protocol
        self._streams = streams
        self._thawed = asyncio.Event()
        self._thawed.set()

    @property
    def open(self) -> bool:
        """Whether frames can still be sent."""
        return self._protocol.state is State.OPEN and not self._streams.closing

    @property
    def frozen(self) -> bool:
        """Whether the link is half-open: what is sent goes nowhere, and its end is not noticed."""
        return not self._thawed.is_set()

    def freeze(self) -> None:
        """Make the link half-open."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Notice what happened to the link meanwhile."""
        self._thawed.set()

    async def send(self, data: str | bytes) -> None:
        """Send one frame; waits while the client does not read; a frame for a closed socket is dropped."""
        if not self.open or self.frozen:
            return
        if isinstance(data, str):
            self._protocol.send_text(data.encode())
        else:
            self._protocol.send_binary(data)
        await self._flush()

    async def texts(self) -> AsyncIterator[str]:
        """The text frames that the client sends, until it is gone."""
        while True:
            data = await self._streams.read()
            await self._thawed.wait()
            if not data:
                self._protocol.receive_eof()
                return
            self._protocol.receive_data(data)
            await self._flush()
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    yield bytes(event.data).decode()
            if self._protocol.state is not State.OPEN:
                return

    async def close(self, code: int = 1000) -> None:
        """Close politely."""
        if self.open:
            self._protocol.send_close(code)
            await self._flush()

    def abort(self) -> None:
        """Drop the connection; the client sees 1006."""
        self._thawed.set()
        self._streams.abort()

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                await self._streams.write(data)


class Streams:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._writer.is_closing()

    async def read(self) -> bytes:
        """What came; empty at the end, however it came."""
        try:
            return await self._reader.read(CHUNK)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Write, and wait while the other side does not read."""
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    def close(self) -> None:
        """Close after what was written."""
        self._writer.close()

    def abort(self) -> None:
        """Reset it."""
        self._writer.transport.abort()


OnRequest = Callable[[Request], Awaitable[Response | None]]
OnSocket = Callable[[Socket], Awaitable[None]]


async def serve_connection(streams: Streams, on_request: OnRequest, on_socket: OnSocket) -> None:
    """Answer one connection's requests until it ends or becomes a socket; None instead of an answer drops it."""
    http = h11.Connection(h11.SERVER)
    while (request := await _request(http, streams)) is not None:
        if request.headers.get("upgrade", "").lower() == "websocket":
            await _upgrade(request, http, streams, on_socket)
            return
        response = await on_request(request)
        if response is None:
            streams.abort()
            return
        await _respond(http, streams, request, response)
        if http.our_state is h11.MUST_CLOSE:
            break
        http.start_next_cycle()
    streams.close()


async def _request(http: h11.Connection, streams: Streams) -> Request | None:
    """The next request; None at the end of the connection."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA:
            http.receive_data(await streams.read())
        elif isinstance(event, h11.Request):
            head = event
            if (b"upgrade", b"websocket") in [(name, value.lower()) for name, value in event.headers]:
                return _parsed(event, b"")
            if http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await streams.write(http.send(go_on) or b"")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _parsed(head, bytes(body))
        else:
            return None


def _parsed(head: h11.Request, body: bytes) -> Request:
    url = urlsplit(head.target.decode("latin-1"))
    query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode(), unquote(url.path), query, headers, body)


async def _respond(http: h11.Connection, streams: Streams, request: Request, response: Response) -> None:
    headers = [("Content-Length", str(len(response.body))), *response.headers.items()]
    if response.content_type:
        headers.append(("Content-Type", response.content_type))
    data = http.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if request.method != "HEAD":
        data += http.send(h11.Data(data=response.body)) or b""
    await streams.write(data + (http.send(h11.EndOfMessage()) or b""))


async def _upgrade(request: Request, http: h11.Connection, streams: Streams, on_socket: OnSocket) -> None:
    protocol = ServerProtocol(max_size=None)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    protocol.receive_data(f"GET {request.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
    [handshake] = protocol.events_received()
    assert isinstance(handshake, Handshake)
    protocol.send_response(protocol.accept(handshake))
    for data in protocol.data_to_send():
        await streams.write(data)
    if protocol.state is not State.OPEN:
        streams.close()
        return
    trailing, _ = http.trailing_data
    socket = Socket(request.query, protocol, streams)
    if trailing:
        protocol.receive_data(trailing)
    try:
        await on_socket(socket)
    finally:
        streams.close()
