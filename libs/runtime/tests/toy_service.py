"""A service that does nothing, for the tests of the lifecycle."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Literal

import msgspec

from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock
from reverie_runtime.health import Health
from reverie_runtime.lifecycle import run_service
from reverie_runtime.metrics import Metrics
from reverie_runtime.settings import DrainSettings, HealthSettings, LogSettings, NatsSettings


class Toy(msgspec.Struct, frozen=True):
    """What it does wrong."""

    fault: Literal["none", "crash", "unhealthy", "endless drain", "endless start", "give up"] = "none"


class Settings(msgspec.Struct, frozen=True):
    """Everything it can be told."""

    toy: Toy = Toy()
    nats: NatsSettings = NatsSettings()
    log: LogSettings = LogSettings()
    health: HealthSettings = HealthSettings()
    drain: DrainSettings = DrainSettings()


@contextlib.asynccontextmanager
async def serve(
    settings: Settings, *, bus: Bus, clock: Clock, health: Health, metrics: Metrics
) -> AsyncIterator[None]:
    """Be there."""

    async def check() -> str | None:
        return "the spring is broken" if settings.toy.fault == "unhealthy" else None

    health.add("spring", check)
    if settings.toy.fault == "crash":
        raise RuntimeError("the user wrote SECRET")
    if settings.toy.fault == "endless start":
        await asyncio.Event().wait()
    if settings.toy.fault == "give up":
        asyncio.get_running_loop().call_soon(health.give_up, "the spring broke for good")
    yield
    sys.stderr.write("winding down\n")
    if settings.toy.fault == "endless drain":
        await asyncio.Event().wait()
    sys.stderr.write("wound down\n")


if __name__ == "__main__":
    sys.exit(run_service("toy", Settings, serve))
