"""What can be set for a monitor, with its bounds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_runtime.settings import DrainSettings, HealthSettings, LogSettings, NatsSettings
from reverie_storage.settings import StorageSettings

#: Beside the worker of the same machine, whose default is 4201.
HEALTH_PORT = 4203


class MonitorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `monitor`."""

    node: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{0,64}$",
            description="name of this node, no other monitor's; empty is the host's name",
        ),
    ] = ""
    interval_s: Annotated[float, Meta(ge=0.1, le=60, description="seconds between two measurements")] = 2.0
    services: Annotated[
        tuple[str, ...],
        Meta(
            description="services whose `/ready` is asked, such as `gateway=http://127.0.0.1:4200/ready`; workers "
            "are known by their heartbeats"
        ),
    ] = ()
    recording: Annotated[
        str,
        Meta(description="file of recorded NVML answers to show instead of this node's GPUs; empty is none"),
    ] = ""

    def __post_init__(self) -> None:
        """ValueError for a service that is not `name=http://…`."""
        for service in self.services:
            name, separator, url = service.partition("=")
            if not (name and separator and url.startswith(("http://", "https://"))):
                raise ValueError(f"monitor.services: {service!r} is not name=http://host:port/ready")


class AlertSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `alerts`: where each begins; it ends a margin before that, so that it does not flap."""

    hold_s: Annotated[
        float,
        Meta(ge=0, le=3600, description="Seconds that a figure stays beyond a threshold before it counts"),
    ] = 5.0
    repeat_s: Annotated[
        float, Meta(ge=1, le=3600, description="Seconds after which an alert that lasts is told again")
    ] = 30.0
    vram_percent: Annotated[float, Meta(gt=0, le=100, description="GPU memory in use; a warning")] = 97.0
    vram_margin_percent: Annotated[float, Meta(ge=0, le=50, description="How far below it ends")] = 4.0
    temperature_c: Annotated[
        float,
        Meta(gt=0, le=150, description="GPU temperature; critical from where the GPU slows itself down"),
    ] = 87.0
    temperature_margin_c: Annotated[float, Meta(ge=0, le=50, description="How far below it ends")] = 5.0
    ecc_uncorrected: Annotated[
        int, Meta(ge=1, description="Uncorrected ECC errors since the driver was loaded; critical")
    ] = 1
    ecc_corrected: Annotated[
        int, Meta(ge=1, description="Corrected ECC errors since the driver was loaded; a warning")
    ] = 1000
    memory_percent: Annotated[float, Meta(gt=0, le=100, description="Host memory in use; a warning")] = 92.0
    memory_critical_percent: Annotated[
        float, Meta(gt=0, le=100, description="Host memory in use; critical")
    ] = 98.0
    memory_margin_percent: Annotated[float, Meta(ge=0, le=50, description="How far below it ends")] = 4.0
    disk_free_percent: Annotated[
        float, Meta(ge=0, le=100, description="Free space of the storage folder; a warning below")
    ] = 10.0
    disk_free_critical_percent: Annotated[
        float, Meta(ge=0, le=100, description="Free space of the storage folder; critical below")
    ] = 3.0
    disk_margin_percent: Annotated[float, Meta(ge=0, le=50, description="How far above it ends")] = 2.0
    worker_silent_s: Annotated[
        float, Meta(ge=2, le=3600, description="Seconds without a heartbeat after which a worker is gone")
    ] = 6.0
    service_down_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds that a service is not ready before it counts")
    ] = 15.0

    def __post_init__(self) -> None:
        """ValueError where a critical threshold comes before the warning."""
        if self.memory_critical_percent < self.memory_percent:
            raise ValueError("memory_critical_percent is below memory_percent")
        if self.disk_free_critical_percent > self.disk_free_percent:
            raise ValueError("disk_free_critical_percent is above disk_free_percent")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections of the monitor."""

    monitor: MonitorSettings = MonitorSettings()
    alerts: AlertSettings = AlertSettings()
    nats: NatsSettings = NatsSettings()
    storage: StorageSettings = StorageSettings()
    health: HealthSettings = HealthSettings(port=HEALTH_PORT)
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()
