"""NVML answers from a file, in the form of the calls: for tests, and for looking at a console without a GPU.

```
{"source": "where the answers are from",
 "calls": {"nvmlSystemGetDriverVersion": "515.105.01"},
 "devices": [{"nvmlDeviceGetName": "Tesla T4", "nvmlDeviceGetTemperature(0)": 40, "mig": [{…}], …}]}
```
A call with arguments beside the handle has them in its key.  `{"error": "NOT_SUPPORTED"}` is an answer too, and
what every call gives that was not recorded.  The file is read anew by each `nvmlInit` and `nvmlDeviceGetCount`, so
it can be changed while it is shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

from reverie_monitor.gpu.nvml import Nvml, NVMLError


class RecordedNvml(Nvml):
    """A recording behind NVML's calls; like the driver it answers UNINITIALIZED before `nvmlInit`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._initialized = False
        self._recording: dict[str, Any] = {}

    def nvmlInit(self) -> None:
        self._recording = json.loads(self._path.read_text(encoding="utf-8"))
        self._answer(self._recording.get("calls", {}), "nvmlInit", default=None)
        self._initialized = True

    def nvmlShutdown(self) -> None:
        self._require_initialized()
        self._initialized = False

    def nvmlSystemGetDriverVersion(self) -> str:
        self._require_initialized()
        version: str = self._answer(self._recording["calls"], "nvmlSystemGetDriverVersion")
        return version

    def nvmlDeviceGetCount(self) -> int:
        self._require_initialized()
        self._recording = json.loads(self._path.read_text(encoding="utf-8"))
        count: int = self._answer(
            self._recording["calls"], "nvmlDeviceGetCount", default=len(self._recording["devices"])
        )
        return count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        self._require_initialized()
        device = self._recording["devices"][index]
        self._answer(device, "nvmlDeviceGetHandleByIndex", default=None)
        return device

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:
        parts = handle.get("mig", [])
        if index >= len(parts):
            raise NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return parts[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return str(self._answer(handle, "nvmlDeviceGetUUID"))

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return str(self._answer(handle, "nvmlDeviceGetName"))

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        return SimpleNamespace(**self._answer(handle, "nvmlDeviceGetMemoryInfo"))

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        return SimpleNamespace(**self._answer(handle, "nvmlDeviceGetUtilizationRates"))

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        return int(self._answer(handle, f"nvmlDeviceGetTemperature({sensor})"))

    def nvmlDeviceGetTemperatureThreshold(self, handle: Any, threshold: int) -> int:
        return int(self._answer(handle, f"nvmlDeviceGetTemperatureThreshold({threshold})"))

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetPowerUsage"))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetEnforcedPowerLimit"))

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, error_type: int, counter: int) -> int:
        return int(self._answer(handle, f"nvmlDeviceGetTotalEccErrors({error_type},{counter})"))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetCurrentClocksThrottleReasons"))

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any) -> list[Any]:
        processes = self._answer(handle, "nvmlDeviceGetComputeRunningProcesses_v3")
        return [SimpleNamespace(**process) for process in processes]

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        return list(self._answer(handle, "nvmlDeviceGetMigMode"))

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:
        return int(self._answer(handle, "nvmlDeviceGetMaxMigDeviceCount"))

    def _require_initialized(self) -> None:
        if not self._initialized:
            raise NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    @staticmethod
    def _answer(answers: dict[str, Any], call: str, **default: Any) -> Any:
        answer = answers.get(call, default.get("default", {"error": "NOT_SUPPORTED"}))
        if isinstance(answer, dict) and "error" in answer:
            raise NVMLError(getattr(pynvml, f"NVML_ERROR_{answer['error']}"))
        return answer
