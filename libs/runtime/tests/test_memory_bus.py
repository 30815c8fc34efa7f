"""What only the bus in memory can do: own its time, lose replies on request."""

import asyncio

import pytest

from reverie_runtime.bus.memory import MemoryBus, MemoryServer
from reverie_runtime.bus.port import BucketConfig, Entry, Message, RequestTimeout, WriteUncertain
from reverie_testing.bus_conformance import snapshot, take
from reverie_testing.clock import VirtualClock


async def test_entries_expire_by_the_tests_clock(virtual_clock: VirtualClock) -> None:
    bucket = await MemoryBus(MemoryServer(virtual_clock)).bucket(BucketConfig("brief", ttl_s=30))
    async with bucket.watch() as events:
        await snapshot(events)
        await bucket.put("k", b"1")
        assert await take(events) == Entry("k", b"1", 1)
        await virtual_clock.advance(29)
        assert await bucket.get("k") is not None
        await virtual_clock.advance(1)
        assert await take(events) == Entry("k", None, 2)
        assert await bucket.get("k") is None


async def test_a_request_waits_by_the_tests_clock(virtual_clock: VirtualClock) -> None:
    bus = MemoryBus(MemoryServer(virtual_clock))

    async def silent(_: Message) -> None:
        return

    await bus.subscribe("a", silent)
    asking = asyncio.create_task(bus.request("a", b"", timeout=3600))
    await virtual_clock.advance(3599)
    assert not asking.done()
    await virtual_clock.advance(1)
    with pytest.raises(RequestTimeout):
        await asking
    await bus.close()


@pytest.mark.parametrize("applied", [True, False])
async def test_a_lost_reply_leaves_the_writer_uncertain(*, applied: bool) -> None:
    server = MemoryServer()
    bucket = await MemoryBus(server).bucket(BucketConfig("b"))
    server.lose_reply(applied=applied)
    with pytest.raises(WriteUncertain):
        await bucket.create("k", b"1")
    assert (await bucket.get("k") is not None) is applied
