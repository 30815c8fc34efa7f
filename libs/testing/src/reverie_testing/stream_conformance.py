"""What every adapter of the bus must do with streams; imported by a test module beside `bus_conformance`."""

# ruff: noqa: D103 -- these are tests: their names are the sentences

from __future__ import annotations

import asyncio

import pytest

from reverie_runtime.bus.port import Bus, BusError, BusUnavailable, Stream, StreamConfig, WriteUncertain
from reverie_testing.bus_conformance import PATIENCE_S, BusServer, Inbox, connection

LOG = StreamConfig("LOG", ("log.>",), max_age_s=3600.0)


async def append(stream: Stream, subject: str, data: bytes) -> int:
    """Append until it is certain, as callers do."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await stream.append(subject, data)
            except (BusUnavailable, WriteUncertain):
                await asyncio.sleep(0.01)


async def test_what_a_stream_keeps_is_numbered_and_heard_by_those_who_listen(bus: Bus) -> None:
    inbox = Inbox()
    await bus.subscribe("log.>", inbox)
    stream = await bus.stream(LOG)
    assert [await stream.append(f"log.{name}", name.encode()) for name in ("a", "b.c")] == [1, 2]
    assert [(await inbox.take()).data for _ in range(2)] == [b"a", b"b.c"]


async def test_what_no_stream_keeps_is_not_acknowledged(bus: Bus) -> None:
    stream = await bus.stream(LOG)
    with pytest.raises(BusUnavailable):
        await stream.append("other.subject", b"x")


async def test_a_stream_goes_on_where_it_was_after_a_kill_and_begins_anew_after_a_wipe(
    bus: Bus, bus_server: BusServer
) -> None:
    stream = await bus.stream(LOG)
    assert await stream.append("log.a", b"1") == 1
    bus_server.kill()
    await connection(bus, up=False)
    with pytest.raises(BusUnavailable):
        await stream.append("log.a", b"lost")
    bus_server.start()
    assert await append(stream, "log.a", b"2") == 2
    bus_server.kill()
    await connection(bus, up=False)
    bus_server.wipe()
    bus_server.start()
    assert await append(stream, "log.a", b"3") == 1


async def test_a_stream_of_that_name_with_other_subjects_is_refused(bus: Bus) -> None:
    await bus.stream(LOG)
    with pytest.raises(BusError, match=r"LOG.*subjects"):
        await bus.stream(StreamConfig("LOG", ("other.>",), max_age_s=3600.0))
