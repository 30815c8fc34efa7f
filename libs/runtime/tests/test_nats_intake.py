"""Messages that go around nats-py and those that go through it are one stream, whatever pieces it arrives in."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import nats
import pytest

from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bus, Message
from reverie_testing.bus_conformance import Inbox
from reverie_testing.nats_server import NatsServer

MESSAGES = 300
#: What would be messages of the first subscriptions, where it did not stand within one.
DECEPTIVE = b"".join(b"\r\nMSG a.b %d 0\r\n\r\n" % number for number in range(1, 5))
#: Sizes of what the server says, as a relay passes it on.
PIECES = {
    "bytes": lambda: random.randint(1, 8),
    "pieces": lambda: random.randint(1, 90),
    "whole": lambda: 1 << 16,
}


@asynccontextmanager
async def relay(
    server: NatsServer, size: Callable[[], int], change: Callable[[bytes], bytes]
) -> AsyncIterator[str]:
    """A URL of the server, by way of a relay that cuts what it says into pieces of `size`, and may change them."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cut: bool) -> None:
        writers.append(writer)
        while data := await reader.read(size() if cut else 1 << 16):
            writer.write(change(data) if cut else data)
            await writer.drain()
            if cut:
                await asyncio.sleep(0)  # so that the other end reads each piece by itself, mostly
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(
            pump(reader, server_writer, cut=False),
            pump(server_reader, writer, cut=True),
            return_exceptions=True,
        )

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()
    for writer in writers:
        writer.close()


async def heard(bus: Bus, subject: str) -> tuple[list[Message], asyncio.Event]:
    """What a plain function hears, and an event for the message that is the last."""
    messages: list[Message] = []
    complete = asyncio.Event()

    def handler(message: Message) -> None:
        messages.append(message)
        if message.data == b"last":
            complete.set()

    await bus.subscribe(subject, handler)
    return messages, complete


@pytest.mark.parametrize("pieces", PIECES)
async def test_every_message_comes_once_and_in_order_however_the_stream_is_cut(
    nats_server: NatsServer, pieces: str
) -> None:
    async with relay(nats_server, PIECES[pieces], lambda data: data) as url:
        bus = await connect_nats(url, name="test", connect_timeout=20)
        publisher = await nats.connect(nats_server.url)
        plain, complete = await heard(bus, "a.*")
        queued = Inbox()
        await bus.subscribe("a.b", queued)
        sent = []
        for number in range(MESSAGES):
            # It begins like a message: where its own head comes alone, nats-py has nothing of it in its buffer.
            data = b"MSG a.b %d 0\r\n\r\n%d " % (1 + number % 4, number) + DECEPTIVE * random.randint(0, 8)
            headers = {"of": "somebody else"} if number % 7 == 0 else None
            await publisher.publish("a.b", data, reply=f"to.{number % 3}" * (number % 3), headers=headers)
            sent.append(("a.b", data, f"to.{number % 3}" * (number % 3)))
            if number % 20 == 0:
                await publisher.flush()
        await publisher.publish("a.b", b"last")
        await publisher.flush()
        async with asyncio.timeout(30):
            await complete.wait()
        assert [(each.subject, each.data, each.reply) for each in plain[:-1]] == sent
        assert [(await queued.take()).data for _ in sent] == [data for _, data, _ in sent]
        await publisher.close()
        await bus.close()


async def test_a_plain_function_is_called_where_the_bytes_come_in(nats_server: NatsServer) -> None:
    bus = await connect_nats(nats_server.url, name="test")
    tasks: list[object] = []
    called = asyncio.Event()

    def handler(_: Message) -> None:
        tasks.append(asyncio.current_task())
        called.set()

    await bus.subscribe("a", handler)
    for _ in range(20):
        called.clear()
        await bus.publish("a", b"")
        async with asyncio.timeout(30):
            await called.wait()
    assert None in tasks  # else each went the long way through nats-py's reading task
    await bus.close()


async def test_a_stream_that_is_garbled_ends_the_connection_and_the_next_one_is_heard(
    nats_server: NatsServer,
) -> None:
    garble = {"left": 2}

    def change(data: bytes) -> bytes:
        if garble["left"] and b"MSG a.b" in data:
            garble["left"] -= 1
            return data.replace(b"MSG a.b", b"MSG \xff.b" if garble["left"] else b"MSG a b c d")
        return data

    async with relay(nats_server, PIECES["whole"], change) as url:
        bus = await connect_nats(url, name="test")
        publisher = await nats.connect(nats_server.url)
        plain, complete = await heard(bus, "a.*")
        async with asyncio.timeout(30):
            while not complete.is_set():
                await publisher.publish("a.b", b"last")
                await publisher.flush()
                await asyncio.sleep(0.01)
        assert garble["left"] == 0
        assert {each.data for each in plain} == {b"last"}
        await publisher.close()
        await bus.close()


async def test_what_has_ended_its_subscription_hears_no_more_of_what_came_with_the_last_message(
    nats_server: NatsServer,
) -> None:
    bus = await connect_nats(nats_server.url, name="test")
    count = 0
    ending: list[asyncio.Task[None]] = []

    def handler(_: Message) -> None:
        nonlocal count
        count += 1
        ending.append(asyncio.create_task(subscription.unsubscribe()))

    subscription = await bus.subscribe("a", handler)
    behind = Inbox()
    await bus.subscribe("b", behind)
    await bus.publish("a", b"")
    await bus.publish("b", b"")
    await behind.take()
    await asyncio.gather(*ending)
    await bus.publish("a", b"")
    await bus.publish("b", b"")
    await behind.take()
    assert count == 1
    await bus.close()
