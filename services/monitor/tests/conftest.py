"""A monitor over a real nats-server, with GPUs from a recording that a test may change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from reverie_jobs.mirror import WORKERS
from reverie_monitor.service import serve
from reverie_monitor.settings import AlertSettings, MonitorSettings, Settings
from reverie_protocol.instances import SystemAlert
from reverie_protocol.jobs import JobType, Vram, Worker, WorkerState
from reverie_protocol.server_messages import SystemBackends, SystemStatus
from reverie_protocol.subjects import SYSTEM_ALERT, SYSTEM_BACKENDS, SYSTEM_STATUS
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bus, Message
from reverie_runtime.clock import SystemClock
from reverie_runtime.health import Health
from reverie_runtime.metrics import Metrics
from reverie_storage.settings import StorageSettings
from reverie_testing.nats_server import NatsServer

RECORDINGS = Path(__file__).parent / "recordings"
EVENT_TIMEOUT_S = 30.0
CLOCK = SystemClock()


class Recording:
    """A copy of a recording, changed as a whole as a driver changes its mind."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.content: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
        self.write()

    def write(self) -> None:
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(self.content))
        temporary.replace(self.path)

    def answer(self, call: str, value: Any, *, gpu: int = 0) -> None:
        self.content["devices"][gpu][call] = value
        self.write()

    def call(self, call: str, value: Any) -> None:
        self.content["calls"][call] = value
        self.write()


class Heard:
    """Everything that was published on one subject, decoded, and waiting for the one that is wanted."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self.all: list[Any] = []
        self._decoder = msgspec.json.Decoder(kind)
        self._news = asyncio.Event()

    async def on_message(self, message: Message) -> None:
        self.all.append(self._decoder.decode(message.data))
        self._news.set()

    async def sees(self, condition: Callable[[Any], bool], *, after: int = 0) -> Any:
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            while True:
                for message in self.all[after:]:
                    if condition(message):
                        return message
                self._news.clear()
                await self._news.wait()


class Stage:
    """A bus, ears on what monitors say, and monitors that are started on it."""

    def __init__(self, server: NatsServer, folder: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self.folder = folder
        self.status = Heard(SystemStatus)
        self.alerts = Heard(SystemAlert)
        self.backends = Heard(SystemBackends)
        self.health = Health()
        self.metrics = Metrics()
        self.bus: Bus
        self._stack = stack

    async def open(self) -> None:
        self.bus = await self.connect("ears")
        for subject, heard in (
            (SYSTEM_STATUS, self.status),
            (SYSTEM_ALERT, self.alerts),
            (SYSTEM_BACKENDS, self.backends),
        ):
            await self.bus.subscribe(subject, heard.on_message)
        (self.folder / "storage").mkdir(exist_ok=True)

    async def connect(self, name: str) -> Bus:
        bus = await connect_nats(self.server.url, name=name, connect_timeout=10)
        self._stack.push_async_callback(bus.close)
        return bus

    def recording(self, name: str) -> Recording:
        return Recording(self.folder / "recording.json", name)

    async def monitor(
        self, recording: Recording | None = None, *, services: tuple[str, ...] = (), **alerts: Any
    ) -> Any:
        settings = Settings(
            monitor=MonitorSettings(
                node="bench",
                interval_s=0.1,
                recording=str(recording.path) if recording else "",
                services=services,
            ),
            alerts=AlertSettings(
                **{"hold_s": 0.0, "memory_percent": 100.0, "memory_critical_percent": 100.0, **alerts}
            ),
            storage=StorageSettings(path=str(self.folder / "storage")),
        )
        bus = await self.connect("monitor")
        return await self._stack.enter_async_context(
            serve(settings, bus=bus, clock=CLOCK, health=self.health, metrics=self.metrics)
        )

    async def beat(self, name: str = "painter", **fields: Any) -> None:
        """One heartbeat of a worker."""
        record = {
            "name": name,
            "incarnation": "1",
            "service": "inference",
            "state": WorkerState.READY,
            "backend": "diffusers",
            "job_types": (JobType.GENERATE,),
            "mode": "tiny",
            "vram": Vram(device="Tesla T4", total_gb=15.0, used_gb=1.0, available_gb=14.0, usage_percent=6.7),
            **fields,
        }
        worker = Worker(**record)
        bucket = await self.bus.bucket(WORKERS)
        await bucket.put(f"{worker.name}.{worker.incarnation}", msgspec.json.encode(worker))

    @asynccontextmanager
    async def beating(self, name: str = "painter") -> AsyncIterator[None]:
        """A worker that beats as long as the block lasts."""

        async def beat() -> None:
            while True:
                await self.beat(name)
                await asyncio.sleep(0.3)

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def says_good_bye(self, name: str = "painter") -> None:
        await (await self.bus.bucket(WORKERS)).delete(f"{name}.1")


@pytest_asyncio.fixture
async def stage(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        stage = Stage(nats_server, tmp_path, stack)
        await stage.open()
        yield stage


@pytest.fixture
def recording(tmp_path: Path) -> Callable[[str], Recording]:
    """A copy of a recording that the test may change."""
    return lambda name: Recording(tmp_path / "recording.json", name)
