"""Both adapters keep the promises of the port."""

from collections.abc import AsyncIterator

import pytest

from reverie_runtime.bus.memory import MemoryBus, MemoryServer
from reverie_runtime.bus.nats import NatsBus, connect_nats
from reverie_runtime.bus.nats_jetstream import stream_info
from reverie_runtime.bus.port import Bucket, Bus
from reverie_testing.bus_conformance import *  # noqa: F403 -- the suite is its test functions
from reverie_testing.nats_server import NatsServer
from reverie_testing.stream_conformance import *  # noqa: F403 -- likewise


class OverNats:
    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.start, self.kill, self.wipe = server.start, server.kill, server.wipe
        self.buses: list[Bus] = []

    async def connect(self) -> Bus:
        self.buses.append(await connect_nats(self.server.url, name="conformance"))
        return self.buses[-1]

    async def consumers(self, bucket: Bucket) -> int:
        bus = self.buses[0]
        assert isinstance(bus, NatsBus)
        return (await stream_info(bus.link, f"KV_{bucket.name}")).state.consumer_count


class InMemory:
    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.start, self.kill, self.wipe = server.restart, server.kill, server.wipe
        self.buses: list[Bus] = []

    async def connect(self) -> Bus:
        self.buses.append(MemoryBus(self.server))
        return self.buses[-1]

    async def consumers(self, bucket: Bucket) -> int:
        return len(self.server.watches)


@pytest.fixture(params=["memory", "nats"])
async def bus_server(request: pytest.FixtureRequest) -> AsyncIterator[OverNats | InMemory]:
    if request.param == "memory":
        server: OverNats | InMemory = InMemory(MemoryServer())
    else:
        server = OverNats(request.getfixturevalue("nats_server"))
    yield server
    for bus in server.buses:
        await bus.close()
