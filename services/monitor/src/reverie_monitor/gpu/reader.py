"""From NVML's calls to the GPUs of this node.

A driver refuses some figures on some GPUs: such a field is None and the others are there.  A GPU that answers no
more is kept as `lost`, under the name that it had; a driver that is gone is tried again at the next reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec
import pynvml

from reverie_monitor.gpu.nvml import DEVICE_GONE, DRIVER_GONE, NO_LIBRARY, Nvml, NVMLError
from reverie_protocol.jobs import Vram
from reverie_protocol.nodes import Gpu, GpuProcess, GpuState, MigInstance, ThrottleReason

_GB: Final = 1024**3
#: Idle, and clocks that somebody asked for, are no throttling.
_THROTTLING: Final[tuple[tuple[int, ThrottleReason], ...]] = (
    (pynvml.nvmlClocksThrottleReasonHwSlowdown, ThrottleReason.HARDWARE),
    (pynvml.nvmlClocksThrottleReasonSwThermalSlowdown, ThrottleReason.SOFTWARE_THERMAL),
    (pynvml.nvmlClocksThrottleReasonHwThermalSlowdown, ThrottleReason.HARDWARE_THERMAL),
    (pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown, ThrottleReason.POWER_BRAKE),
    (pynvml.nvmlClocksThrottleReasonSwPowerCap, ThrottleReason.POWER_CAP),
)
T = TypeVar("T")


class GpuReading(msgspec.Struct, frozen=True):
    """What the driver told; `error` is why it told nothing, empty where there simply is none."""

    driver: str = ""
    error: str = ""
    gpus: tuple[Gpu, ...] = ()


class GpuReader:
    """Reads all GPUs; not for several threads at once."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._initialized = False
        self._seen: dict[str, Gpu] = {}

    def read(self) -> GpuReading:
        """All GPUs now, and those that are lost; never an NVMLError."""
        try:
            if not self._initialized:
                self._nvml.nvmlInit()
                self._initialized = True
            count = self._nvml.nvmlDeviceGetCount()
            driver = self._told(self._nvml.nvmlSystemGetDriverVersion) or ""
            gpus = [gpu for index in range(count) if (gpu := self._gpu(index)) is not None]
        except NVMLError as error:
            self.close()
            return self._unreadable(error)
        present = {gpu.uuid for gpu in gpus}
        gpus += [_lost(gpu, "the driver does not list it any more") for gpu in self._missing(present)]
        return GpuReading(driver=driver, gpus=tuple(sorted(gpus, key=lambda gpu: (gpu.index, gpu.uuid))))

    def close(self) -> None:
        """End NVML; the next reading begins it anew.  Idempotent."""
        if not self._initialized:
            return
        self._initialized = False
        try:
            self._nvml.nvmlShutdown()
        except NVMLError:
            return  # a driver that is gone cannot be shut down

    def _unreadable(self, error: Exception) -> GpuReading:
        reason = "" if _code(error) == NO_LIBRARY and not self._seen else _words(error)
        return GpuReading(error=reason, gpus=tuple(_lost(gpu, reason) for gpu in self._missing(set())))

    def _missing(self, present: set[str]) -> Iterator[Gpu]:
        return (gpu for uuid, gpu in self._seen.items() if uuid not in present)

    def _gpu(self, index: int) -> Gpu | None:
        """One GPU; None for one that is not for us to read."""
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpu = self._measured(index, nvml.nvmlDeviceGetUUID(handle), handle)
        except NVMLError as error:
            if _code(error) in DRIVER_GONE:
                raise
            # Some drivers still count a lost GPU; whose place it was tells which one it is.
            known = next((gpu for gpu in self._seen.values() if gpu.index == index), None)
            if known is None and _code(error) in DEVICE_GONE:
                known = Gpu(index=index, uuid=f"unknown-{index}", name="NVIDIA GPU")
            return None if known is None else _lost(known, _words(error))
        self._seen[gpu.uuid] = gpu
        return gpu

    def _measured(self, index: int, uuid: str, handle: Any) -> Gpu:
        nvml, told = self._nvml, self._told
        total_gb, used_gb = self._memory(handle)
        rates = told(nvml.nvmlDeviceGetUtilizationRates, handle)
        mask = told(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        mig = told(nvml.nvmlDeviceGetMigMode, handle)
        divided = bool(mig and mig[0])
        volatile = pynvml.NVML_VOLATILE_ECC
        return Gpu(
            index=index,
            uuid=uuid,
            name=told(nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
            total_gb=total_gb,
            used_gb=used_gb,
            utilization_percent=None if rates is None else rates.gpu,
            temperature_c=told(nvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            slowdown_c=told(
                nvml.nvmlDeviceGetTemperatureThreshold, handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
            ),
            power_w=_watts(told(nvml.nvmlDeviceGetPowerUsage, handle)),
            power_limit_w=_watts(told(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
            ecc_corrected=told(
                nvml.nvmlDeviceGetTotalEccErrors, handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, volatile
            ),
            ecc_uncorrected=told(
                nvml.nvmlDeviceGetTotalEccErrors, handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, volatile
            ),
            throttled=tuple(reason for bit, reason in _THROTTLING if mask & bit),
            mig_enabled=divided,
            mig=tuple(self._parts(handle)) if divided else (),
            processes=self._processes(handle),
        )

    def _parts(self, handle: Any) -> Iterator[MigInstance]:
        """The parts of a divided GPU; their places may have gaps."""
        nvml = self._nvml
        for index in range(self._told(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            part = self._told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
            uuid = self._told(nvml.nvmlDeviceGetUUID, part) if part is not None else None
            if uuid is None:
                continue
            total_gb, used_gb = self._memory(part)
            yield MigInstance(index=index, uuid=uuid, total_gb=total_gb, used_gb=used_gb)

    def _memory(self, handle: Any) -> tuple[float | None, float | None]:
        """All of it, and what is not free; in GB."""
        memory = self._told(self._nvml.nvmlDeviceGetMemoryInfo, handle)
        if memory is None:
            return None, None
        return _gb(memory.total), _gb(memory.total - memory.free)

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...] | None:
        processes = self._told(self._nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
        if processes is None:
            return None
        return tuple(GpuProcess(pid=process.pid, used_gb=_gb(process.usedGpuMemory)) for process in processes)

    @staticmethod
    def _told(call: Callable[..., T], *arguments: Any) -> T | None:
        """The answer; None where the driver refuses this one."""
        try:
            return call(*arguments)
        except NVMLError as error:
            if _code(error) in DRIVER_GONE | DEVICE_GONE:
                raise
            return None
        except UnicodeDecodeError:  # a name that the driver garbled
            return None


def total_vram(gpus: tuple[Gpu, ...]) -> Vram:
    """Memory of all GPUs that work; "No GPU" and zeros without any.

    `allocated_gb` is what processes hold, as far as the driver tells.
    """
    working = [gpu for gpu in gpus if gpu.state is GpuState.OK]
    if not working:
        return Vram()
    total = sum(gpu.total_gb or 0.0 for gpu in working)
    used = sum(gpu.used_gb or 0.0 for gpu in working)
    held = sum(process.used_gb or 0.0 for gpu in working for process in gpu.processes or ())
    return Vram(
        device=", ".join(gpu.name for gpu in working),
        total_gb=round(total, 2),
        allocated_gb=round(held, 2),
        used_gb=round(used, 2),
        available_gb=round(total - used, 2),
        usage_percent=round(100 * used / total, 1) if total else 0.0,
    )


def _lost(gpu: Gpu, reason: str) -> Gpu:
    return Gpu(index=gpu.index, uuid=gpu.uuid, name=gpu.name, state=GpuState.LOST, detail=reason)


def _gb(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else round(size_bytes / _GB, 2)


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)


def _code(error: Exception) -> int:
    return int(getattr(error, "value", -1))


def _words(error: Exception) -> str:
    """What NVML calls the error."""
    return f"the NVIDIA driver says: {error}"
