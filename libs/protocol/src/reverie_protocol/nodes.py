"""What a monitor measures on its node: GPUs as the driver tells, the machine, and services that it asks.

Every figure that a driver may refuse is optional: absent means "not told", never zero.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import Vram
from reverie_protocol.quantities import NOT_NEGATIVE, Count, Gigabytes, Percent

Celsius = Annotated[float, Meta(description="degrees Celsius")]
Watts = Annotated[float, Meta(description="watts", extra_json_schema=NOT_NEGATIVE)]


class GpuState(StrEnum):
    """`lost` is a GPU that was there before: off the bus, in need of a reset, or without its driver."""

    OK = "ok"
    LOST = "lost"


class ThrottleReason(StrEnum):
    """Why a GPU runs below the clock that it could have, for reasons that an operator can mend."""

    HARDWARE = "hw_slowdown"
    SOFTWARE_THERMAL = "sw_thermal_slowdown"
    HARDWARE_THERMAL = "hw_thermal_slowdown"
    POWER_BRAKE = "hw_power_brake_slowdown"
    POWER_CAP = "sw_power_cap"


class GpuProcess(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One compute process on a GPU; `pid` as the driver counts, which a container may not know."""

    pid: Annotated[int, Meta(description="process id on the node", extra_json_schema=NOT_NEGATIVE)]
    used_gb: Gigabytes | None = None


class MigInstance(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One part of a GPU that is divided (MIG)."""

    index: Count
    uuid: str
    total_gb: Gigabytes | None = None
    used_gb: Gigabytes | None = None


class Gpu(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One GPU.  ECC errors are those since the driver was loaded; `slowdown_c` is where the GPU slows itself down.

    `mig` are the parts of a divided GPU; `processes` is absent where the driver does not tell them.
    """

    index: Count
    uuid: str
    name: str
    state: GpuState = GpuState.OK
    detail: str = ""
    total_gb: Gigabytes | None = None
    used_gb: Gigabytes | None = None
    utilization_percent: Percent | None = None
    temperature_c: Celsius | None = None
    slowdown_c: Celsius | None = None
    power_w: Watts | None = None
    power_limit_w: Watts | None = None
    ecc_corrected: Count | None = None
    ecc_uncorrected: Count | None = None
    throttled: tuple[ThrottleReason, ...] = ()
    mig_enabled: bool = False
    mig: tuple[MigInstance, ...] = ()
    processes: tuple[GpuProcess, ...] | None = None


class Host(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The machine without its GPUs; the load is the average of one minute."""

    cores: Count
    cpu_percent: Percent
    load: Annotated[float, Meta(description="processes that want a core", extra_json_schema=NOT_NEGATIVE)]
    memory_total_gb: Gigabytes
    memory_available_gb: Gigabytes


class Disk(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The file system that the stored pictures lie on."""

    path: str
    total_gb: Gigabytes
    free_gb: Gigabytes


class ServiceHealth(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What a service's `/ready` answered the monitor; `reason` says why it is not ready."""

    name: str
    ok: bool
    reason: str = ""


class NodeStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One node as its monitor sees it.

    `driver` is the version of the NVIDIA driver, empty without one; `driverError` why its GPUs cannot be read.
    `host` and `disk` are null where they could not be measured.
    """

    node: str
    vram: Vram = Vram()
    driver: str = ""
    driver_error: str = ""
    gpus: tuple[Gpu, ...] = ()
    host: Host | None = None
    disk: Disk | None = None
    services: tuple[ServiceHealth, ...] = ()
