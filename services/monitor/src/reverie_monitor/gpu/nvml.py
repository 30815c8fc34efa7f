"""The calls of NVML that we make: the port that the driver's library and a recording both fill.

Units are NVML's own: bytes, percent, degrees Celsius, milliwatts.  Any call may raise `NVMLError`; its `value` is
one of NVML's codes.  Calls block, and may hang when a driver hangs: make them in a thread that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

import pynvml

NVMLError: Final[type[Exception]] = pynvml.NVMLError

#: There is no NVIDIA driver on this machine at all.
NO_LIBRARY: Final[int] = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
#: The driver is there no more, or is another one: everything has to be begun anew.
DRIVER_GONE: Final[frozenset[int]] = frozenset(
    (
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    )
)
#: This one GPU cannot be used any more.
DEVICE_GONE: Final[frozenset[int]] = frozenset(
    (
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_RESET_REQUIRED,
    )
)


class Memory(Protocol):
    """Bytes; what the driver keeps for itself is neither free nor used by anybody."""

    total: int
    free: int


class Rates(Protocol):
    """Percent of the last moment in which a kernel ran, or memory was read or written."""

    gpu: int


class Process(Protocol):
    """`usedGpuMemory` in bytes, None where it is not told."""

    pid: int
    usedGpuMemory: int | None


class Nvml(Protocol):
    """NVML, as its Python binding spells it; a handle is opaque."""

    def nvmlInit(self) -> None:
        """Begin; may be called again after `nvmlShutdown`."""

    def nvmlShutdown(self) -> None:
        """End what `nvmlInit` began."""

    def nvmlSystemGetDriverVersion(self) -> str:
        """Version of the driver."""

    def nvmlDeviceGetCount(self) -> int:
        """How many GPUs work."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        """The handle of a GPU."""

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        """Identity of a GPU or of a part of it, kept over restarts."""

    def nvmlDeviceGetName(self, handle: Any) -> str:
        """Product name."""

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Memory:
        """Memory of a GPU or of a part of it."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Rates:
        """How busy it is; never told of a divided GPU."""

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        """Degrees Celsius."""

    def nvmlDeviceGetTemperatureThreshold(self, handle: Any, threshold: int) -> int:
        """Degrees Celsius."""

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        """Milliwatts."""

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        """Milliwatts."""

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, error_type: int, counter: int) -> int:
        """A count."""

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        """A bit mask."""

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any) -> Sequence[Process]:
        """Processes that compute on it."""

    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]:
        """Whether it is divided now, and will be after a reset: 0 or 1."""

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:
        """How many parts it can have."""

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:
        """The handle of a part; NVML_ERROR_NOT_FOUND where there is none."""


def driver() -> Nvml:
    """NVML of this machine's driver; without one, `nvmlInit` says NVML_ERROR_LIBRARY_NOT_FOUND."""
    return cast(Nvml, pynvml)
