"""What the proxy does to a connection is what its name says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reverie_launcher.chaos.proxy import GARBAGE, FaultProxy
from reverie_testing.nats_server import free_port

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """Before a server that sends everything back."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    made = FaultProxy(free_port(), server.sockets[0].getsockname()[1])
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        server.close()


@contextlib.asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Ends]:
    """A connection that works."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_a_cut_connection_is_reset_and_the_next_one_works(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, _):
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
    async with connected(proxy):
        assert proxy.connections == 1


async def test_connections_are_refused_until_it_is_healed(proxy: FaultProxy) -> None:
    proxy.refuse()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read(1) == b""
    writer.close()
    proxy.heal()
    async with connected(proxy):
        pass


async def test_nothing_comes_through_a_stalled_connection_and_all_of_it_afterwards(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.stall()
        writer.write(b"later")
        answer = asyncio.create_task(reader.readexactly(5))
        done, _ = await asyncio.wait({answer}, timeout=0.1)
        assert not done
        proxy.heal()
        assert await answer == b"later"


async def test_a_delayed_connection_keeps_its_data_and_their_order(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.delay(0.02)
        for number in range(5):
            writer.write(bytes([number]))
            await asyncio.sleep(0)
        assert await reader.readexactly(5) == bytes(range(5))


async def test_garbage_comes_in_between(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, _):
        proxy.garble()
        assert await reader.readexactly(len(GARBAGE)) == GARBAGE
