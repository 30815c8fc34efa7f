"""A connection's descriptor: there for who writes the same to many, for exactly as long as that is right."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from reverie_gateway.frame import text_frame
from reverie_gateway.wire import NO_DESCRIPTOR, Wire, wire_of
from reverie_protocol.errors import CLOSE_GOING_AWAY
from reverie_runtime.http_server import serve_http

CLOSE_1000 = b"\x88\x82\0\0\0\0" + (1000).to_bytes(2, "big")


class Ends:
    """Both ends of one WebSocket: the wire, and a bare socket that has read the handshake."""

    def __init__(self) -> None:
        self.wire: Wire
        self.client: socket.socket
        self.accepted = asyncio.Event()
        self.ended = asyncio.Event()
        self.descriptor_at_end = -2

    async def __call__(self, scope, receive, send) -> None:
        self.wire = wire_of(scope)
        assert self.wire.descriptor == NO_DESCRIPTOR
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        self.accepted.set()
        while (await receive())["type"] != "websocket.disconnect":
            pass
        self.descriptor_at_end = self.wire.descriptor
        self.ended.set()

    async def read(self, size: int = 65536) -> bytes:
        async with asyncio.timeout(20):
            return await asyncio.get_running_loop().sock_recv(self.client, size)


@asynccontextmanager
async def connected() -> AsyncIterator[Ends]:
    ends = Ends()
    served = serve_http(ends, host="127.0.0.1", port=0, setting="test", ws=Wire, ws_per_message_deflate=False)
    async with served as (host, port), asyncio.timeout(30):
        with socket.socket() as ends.client:
            ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ends.client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(ends.client, (host, port))
            ends.client.send(
                b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            while not (await ends.read(1)).endswith(b"\n") or await ends.read(2) != b"\r\n":
                pass
            await ends.accepted.wait()
            yield ends


async def test_what_is_written_to_the_descriptor_arrives_in_order_with_the_rest() -> None:
    async with connected() as ends:
        assert os.write(ends.wire.descriptor, text_frame(b"1")) == 3
        ends.wire.write(text_frame(b"2"))
        assert os.write(ends.wire.descriptor, text_frame(b"3")) == 3
        seen = b""
        while len(seen) < 9:
            seen += await ends.read()
        assert seen == text_frame(b"1") + text_frame(b"2") + text_frame(b"3")


async def test_a_client_that_does_not_read_has_no_descriptor_until_it_does() -> None:
    async with connected() as ends:
        descriptor, relieved = ends.wire.descriptor, asyncio.Event()
        ends.wire.on_relief = relieved.set
        written = 0
        frame = text_frame(bytes(60_000))
        while not ends.wire.congested:
            ends.wire.write(frame)
            written += len(frame)
        assert ends.wire.descriptor == NO_DESCRIPTOR
        while written:
            written -= len(await ends.read())
        await relieved.wait()
        assert ends.wire.descriptor == descriptor


@pytest.mark.parametrize("how", ["client closes", "half-closed", "cut", "we close", "we abort", "malformed"])
async def test_from_the_end_of_a_conversation_on_there_is_no_descriptor(how: str) -> None:
    async with connected() as ends:
        assert ends.wire.descriptor != NO_DESCRIPTOR
        match how:
            case "client closes":
                ends.client.send(CLOSE_1000)
            case "half-closed":
                ends.client.shutdown(socket.SHUT_WR)
            case "cut":
                ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                ends.client.close()
            case "we close":
                ends.wire.close(CLOSE_GOING_AWAY)
            case "we abort":
                ends.wire.abort()
                assert ends.wire.descriptor == NO_DESCRIPTOR
            case "malformed":
                ends.client.send(b"\xff\xff")
        await ends.ended.wait()
        assert ends.descriptor_at_end == NO_DESCRIPTOR


async def test_a_server_that_ends_takes_the_descriptor_with_its_close_frame() -> None:
    async with connected() as ends:
        ends.wire.shutdown()
        assert ends.wire.descriptor == NO_DESCRIPTOR
        assert (await ends.read()).startswith(b"\x88\x02" + (1012).to_bytes(2, "big"))


async def test_a_connection_that_its_client_leaves_full_stays_without_a_descriptor() -> None:
    async with connected() as ends:
        while not ends.wire.congested:
            ends.wire.write(text_frame(bytes(60_000)))
        ends.wire.abort()
        ends.wire.resume_writing()
        assert ends.wire.descriptor == NO_DESCRIPTOR


async def test_the_state_of_a_connection_takes_no_dictionary() -> None:
    async with connected() as ends:
        assert not vars(ends.wire), "uvicorn has attributes that Wire.__slots__ does not name"


async def test_an_upgrade_that_is_no_proper_request_is_refused_and_no_fault_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def nobody(scope, receive, send) -> None:
        raise AssertionError("the application was asked")

    served = serve_http(nobody, host="127.0.0.1", port=0, setting="test", ws=Wire)
    async with served as (host, port), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(host, port)
        headers = "".join(f"X-{number}: 1\r\n" for number in range(300))
        writer.write(
            f"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}\r\n".encode()
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
    assert "data_received" not in caplog.text
