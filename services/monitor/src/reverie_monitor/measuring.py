"""One round of measurements: the node, its store, the services it asks.  A sensor that fails spoils no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from reverie_monitor.gpu.reader import GpuReader, GpuReading, total_vram
from reverie_monitor.host import read_disk, read_host
from reverie_monitor.sensor import Sensor, SensorSilent
from reverie_monitor.services import ASK_TIMEOUT_S
from reverie_protocol.nodes import Disk, Host, NodeStatus, ServiceHealth
from reverie_runtime.clock import Clock
from reverie_storage.port import Storage, StorageUnavailable

#: A driver under load has been seen to take a second; one that takes longer hangs.
GPU_TIMEOUT_S: Final = 5.0
HOST_TIMEOUT_S: Final = 2.0
STORAGE_TIMEOUT_S: Final = 3.0
#: What costs others something (a write to the store, a request) is done this seldom.
SELDOM_S: Final = 5.0

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Round(msgspec.Struct, frozen=True):
    """What one round found; `storage_reason` is empty for a store that works."""

    node: NodeStatus
    storage_reason: str


class Measuring:
    """All sensors of this node; without a `folder` the store is on no disk of ours."""

    def __init__(
        self,
        node: str,
        *,
        gpus: GpuReader,
        storage: Storage,
        folder: Path | None,
        questions: Mapping[str, Callable[[], ServiceHealth]],
        clock: Clock,
    ) -> None:
        self._node = node
        self._clock = clock
        self._storage = storage
        self._gpus = Sensor("NVML", gpus.read, timeout_s=GPU_TIMEOUT_S)
        self._host = Sensor("the host", read_host, timeout_s=HOST_TIMEOUT_S)
        self._disk = (
            Sensor("the file system", partial(read_disk, folder), timeout_s=HOST_TIMEOUT_S)
            if folder is not None
            else None
        )
        self._services = {
            name: Sensor(name, question, timeout_s=2 * ASK_TIMEOUT_S) for name, question in questions.items()
        }
        self._reading = GpuReading()
        self._seldom_at: float | None = None
        self._checking: asyncio.Task[None] | None = None
        self._storage_reason = ""
        self._healths: tuple[ServiceHealth, ...] = ()
        self._quiet: set[str] = set()

    async def round(self) -> Round:
        """Measure everything now."""
        now = self._clock.monotonic()
        seldom = self._seldom_at is None or now - self._seldom_at >= SELDOM_S
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read_gpus())
            host = group.create_task(self._read("host", self._host))
            disk = group.create_task(self._read("disk", self._disk))
            if seldom:
                self._seldom_at = now
                group.create_task(self._check_storage())
                group.create_task(self._ask_services())
        return Round(self._compose(reading.result(), host.result(), disk.result()), self._storage_reason)

    def _compose(self, reading: GpuReading, host: Host | None, disk: Disk | None) -> NodeStatus:
        return NodeStatus(
            node=self._node,
            vram=total_vram(reading.gpus),
            driver=reading.driver,
            driver_error=reading.error,
            gpus=reading.gpus,
            host=host,
            disk=disk,
            services=self._healths,
        )

    async def _read_gpus(self) -> GpuReading:
        """The GPUs; while the driver hangs, what it told last with a word about that."""
        try:
            self._reading = await self._gpus.read()
        except SensorSilent as silent:
            self._reading = msgspec.structs.replace(self._reading, error=str(silent))
        except Exception as error:
            log.exception("the GPUs cannot be read")
            self._reading = msgspec.structs.replace(
                self._reading, error=f"{type(error).__name__}, see the log"
            )
        return self._reading

    async def _read(self, name: str, sensor: Sensor[T] | None) -> T | None:
        """One figure of the host; None where it cannot be had, said once."""
        if sensor is None:
            return None
        try:
            value = await sensor.read()
        except Exception as error:
            if name not in self._quiet:
                self._quiet.add(name)
                log.warning("a sensor failed", sensor=name, reason=str(error) or type(error).__name__)
            return None
        self._quiet.discard(name)
        return value

    async def _check_storage(self) -> None:
        """Ask the store; one that hangs is not asked again before it has answered."""
        if self._checking is None:
            self._checking = asyncio.create_task(self._storage.check(), name="storage check")
        done, _ = await asyncio.wait((self._checking,), timeout=STORAGE_TIMEOUT_S)
        if not done:
            self._storage_reason = f"it did not answer within {STORAGE_TIMEOUT_S:g} s"
            return
        error = self._checking.exception()
        self._checking = None
        if error is not None and not isinstance(error, StorageUnavailable):
            log.error("the check of the store failed", error=repr(error))
        self._storage_reason = "" if error is None else str(error) or type(error).__name__

    async def _ask_services(self) -> None:
        answers = await asyncio.gather(*(self._ask(name) for name in self._services))
        self._healths = tuple(answers)

    async def _ask(self, name: str) -> ServiceHealth:
        try:
            return await self._services[name].read()
        except Exception as error:  # whatever it is, the service was not seen ready
            return ServiceHealth(name=name, ok=False, reason=str(error) or type(error).__name__)
