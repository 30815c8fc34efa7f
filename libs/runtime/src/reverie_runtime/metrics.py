"""Prometheus metrics of one process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock

LAG_INTERVAL_S: Final = 0.5
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class Metrics:
    """A registry of this process's own; services add their collectors with `registry=metrics.registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._lag = Gauge(
            "reverie_event_loop_lag_seconds",
            "How late the event loop woke a timer, latest measurement",
            registry=self.registry,
        )
        self._connected = Gauge(
            "reverie_bus_connected", "1 while the bus is connected", registry=self.registry
        )

    def render(self) -> bytes:
        """The exposition text, of type CONTENT_TYPE."""
        return generate_latest(self.registry)

    @contextlib.asynccontextmanager
    async def measure(self, bus: Bus, clock: Clock) -> AsyncIterator[None]:
        """Keep the process's own gauges up to date during the block."""
        self._connected.set_function(lambda: float(bus.connected))
        task = asyncio.create_task(self._measure_lag(clock), name="event loop lag")
        try:
            yield
        finally:
            task.cancel()

    async def _measure_lag(self, clock: Clock) -> None:
        while True:
            before = clock.monotonic()
            await clock.sleep(LAG_INTERVAL_S)
            self._lag.set(max(0.0, clock.monotonic() - before - LAG_INTERVAL_S))
