"""The monitor put together: read it from top to bottom and you know the service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog

from reverie_jobs.mirror import WORKERS, WorkerMirror, follow
from reverie_monitor.alerts.book import AlertBook
from reverie_monitor.alerts.conditions import Conditions
from reverie_monitor.gpu.nvml import Nvml, driver
from reverie_monitor.gpu.reader import GpuReader
from reverie_monitor.gpu.recording import RecordedNvml
from reverie_monitor.measuring import Measuring, Round
from reverie_monitor.metrics import register
from reverie_monitor.publisher import Publisher
from reverie_monitor.services import questions
from reverie_monitor.settings import Settings
from reverie_monitor.workers import WorkerRegistry
from reverie_protocol.subjects import QUEUE_STATE, STATUS_REPEAT_S
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock
from reverie_runtime.health import Health
from reverie_runtime.host import host_name
from reverie_runtime.metrics import Metrics
from reverie_storage.settings import open_storage

#: Changes within this time are told together, in seconds.
DEBOUNCE_S: Final = 0.25
#: A monitor that has not measured for this many intervals, and this long, is not ready.
STALE_ROUNDS, STALE_S = 5, 15.0

log = structlog.get_logger(__name__)


class Monitor:
    """The loops of one node's monitor, and what they know."""

    def __init__(
        self,
        settings: Settings,
        *,
        node: str,
        measuring: Measuring,
        workers: WorkerRegistry,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self.book = AlertBook(source=f"monitor/{node}")
        self.latest: Round | None = None
        self._settings = settings
        self._conditions = Conditions(settings.alerts)
        self._measuring = measuring
        self._workers = workers
        self._publisher = publisher
        self._clock = clock
        self._again = False
        self._measured_at = self._status_at = self._alerts_at = clock.monotonic()

    def on_connection(self, connected: bool) -> None:
        """What the bus missed is told as soon as it is back."""
        self._workers.on_connection(connected)
        if connected:
            self._again = True
            self._publisher.dirty.set()

    async def check(self) -> str | None:
        """Whether the figures are fresh."""
        age = self._clock.monotonic() - self._measured_at
        if age > max(STALE_S, STALE_ROUNDS * self._settings.monitor.interval_s):
            return f"nothing was measured for {age:.0f} s"
        return None

    async def measure(self) -> None:
        """One round: measure, and tell the alerts that come of it."""
        found = await self._measuring.round()
        self.latest = found
        now = self._measured_at = self._clock.monotonic()
        conditions = self._conditions.of(
            found.node, storage_reason=found.storage_reason, silence=self._workers.silence()
        )
        await self._publisher.alert(self.book.observe(conditions, now=now, at=self._clock.time()))
        if now - self._alerts_at >= self._settings.alerts.repeat_s:
            self._alerts_at = now
            await self._publisher.alert(self.book.open, again=True)
        self._publisher.dirty.set()

    async def tell(self) -> None:
        """Tell what has changed, or everything where that is due."""
        now = self._clock.monotonic()
        came_back, self._again = self._again, False
        again = came_back or now - self._status_at >= STATUS_REPEAT_S
        if self.latest is None:
            return
        if again:
            self._status_at = now
        await self._publisher.tell(self.latest, again=again)
        if came_back:
            await self._publisher.alert(self.book.open, again=True)

    async def measure_and_rest(self) -> None:
        """A round, then a pause."""
        await self.measure()
        await self._clock.sleep(self._settings.monitor.interval_s)

    async def await_and_tell(self) -> None:
        """Wait for news, gather what comes with it, tell it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_REPEAT_S):
                await self._publisher.dirty.wait()
        await self._clock.sleep(DEBOUNCE_S)
        self._publisher.dirty.clear()
        await self.tell()


@contextlib.asynccontextmanager
async def serve(
    settings: Settings,
    *,
    bus: Bus,
    clock: Clock,
    health: Health | None = None,
    metrics: Metrics | None = None,
    nvml: Nvml | None = None,
) -> AsyncIterator[Monitor]:
    """Watch while the context is open: yields when everything was measured and told once.

    `nvml` is the driver to ask, by default the machine's own, or the recording of the settings.
    """
    node = settings.monitor.node or host_name()
    storage = open_storage(settings.storage)
    gpus = GpuReader(nvml or _nvml(settings.monitor.recording))
    async with contextlib.AsyncExitStack() as stack:
        mirror = WorkerMirror()
        await stack.enter_async_context(follow(mirror, await bus.bucket(WORKERS)))
        workers = WorkerRegistry(mirror, clock=clock, connected=bus.connected)
        publisher = Publisher(bus, workers, provider=storage.provider, version=version("reverie-monitor"))
        measuring = Measuring(
            node,
            gpus=gpus,
            storage=storage,
            folder=None if settings.storage.url else Path(settings.storage.path),
            questions=questions(settings.monitor.services),
            clock=clock,
        )
        monitor = Monitor(
            settings, node=node, measuring=measuring, workers=workers, publisher=publisher, clock=clock
        )
        stack.push_async_callback((await bus.subscribe(QUEUE_STATE, publisher.on_queue_state)).unsubscribe)
        stack.callback(mirror.listen(lambda _: publisher.dirty.set()))
        bus.on_connection(monitor.on_connection)
        if health is not None:
            health.add("measurements", monitor.check)
        if metrics is not None:
            register(metrics.registry, lambda: monitor.latest, workers, monitor.book)

        await monitor.measure()
        await monitor.tell()
        for name, turn in (("measuring", monitor.measure_and_rest), ("telling", monitor.await_and_tell)):
            await stack.enter_async_context(acting(turn, name=name, clock=clock))
        log.info("monitor watches", node=node, gpus=len(monitor.latest.node.gpus) if monitor.latest else 0)
        yield monitor


def _nvml(recording: str) -> Nvml:
    return RecordedNvml(Path(recording)) if recording else driver()
