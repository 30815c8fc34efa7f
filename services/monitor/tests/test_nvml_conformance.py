"""What every NVML behind our port promises: the recordings here, and the driver of a machine that has one.

The driver's own run is marked `gpu`: `pytest -m gpu services/monitor`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from reverie_monitor.gpu.nvml import DEVICE_GONE, DRIVER_GONE, NO_LIBRARY, Nvml, NVMLError, driver
from reverie_monitor.gpu.reader import GpuReader, total_vram
from reverie_monitor.gpu.recording import RecordedNvml
from reverie_protocol.nodes import GpuState, ThrottleReason

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json"))
ADAPTERS = [pytest.param(path, id=path.stem) for path in RECORDINGS]
ADAPTERS.append(pytest.param(None, id="driver", marks=pytest.mark.gpu))
OPTIONAL_CALLS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("nvmlDeviceGetMemoryInfo", ()),
    ("nvmlDeviceGetUtilizationRates", ()),
    ("nvmlDeviceGetTemperature", (pynvml.NVML_TEMPERATURE_GPU,)),
    ("nvmlDeviceGetTemperatureThreshold", (pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,)),
    ("nvmlDeviceGetPowerUsage", ()),
    ("nvmlDeviceGetEnforcedPowerLimit", ()),
    ("nvmlDeviceGetTotalEccErrors", (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_VOLATILE_ECC)),
    ("nvmlDeviceGetTotalEccErrors", (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)),
    ("nvmlDeviceGetCurrentClocksThrottleReasons", ()),
    ("nvmlDeviceGetComputeRunningProcesses_v3", ()),
    ("nvmlDeviceGetMigMode", ()),
    ("nvmlDeviceGetMaxMigDeviceCount", ()),
)


@pytest.fixture(params=ADAPTERS)
def fresh(request: pytest.FixtureRequest) -> Nvml:
    if request.param is not None:
        return RecordedNvml(request.param)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"this machine has no GPU to ask: {error}")
    pynvml.nvmlShutdown()
    return driver()


@pytest.fixture
def nvml(fresh: Nvml) -> Iterator[Nvml]:
    fresh.nvmlInit()
    yield fresh
    fresh.nvmlShutdown()


def code_of(call: Callable[[], object]) -> int:
    """NVML's code of a call: 0 where it answers."""
    try:
        call()
    except NVMLError as error:
        return int(error.value)
    return 0


def handles(nvml: Nvml) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]


def test_before_it_is_begun_and_after_it_is_ended_it_answers_uninitialized(fresh: Nvml) -> None:
    with pytest.raises(NVMLError) as before:
        fresh.nvmlDeviceGetCount()
    fresh.nvmlInit()
    assert fresh.nvmlDeviceGetCount() >= 1
    fresh.nvmlShutdown()
    with pytest.raises(NVMLError) as after:
        fresh.nvmlDeviceGetCount()
    assert before.value.value == after.value.value == pynvml.NVML_ERROR_UNINITIALIZED


def test_it_can_be_begun_again(fresh: Nvml) -> None:
    for _ in range(3):
        fresh.nvmlInit()
        assert fresh.nvmlSystemGetDriverVersion().partition(".")[0].isdigit()
        fresh.nvmlShutdown()


def test_each_gpu_has_an_identity_of_its_own_and_a_name(nvml: Nvml) -> None:
    uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles(nvml)]
    assert len(set(uuids)) == len(uuids)
    assert all(uuid.startswith("GPU-") for uuid in uuids)
    assert all(nvml.nvmlDeviceGetName(handle) for handle in handles(nvml))


@pytest.mark.parametrize(("call", "arguments"), OPTIONAL_CALLS)
def test_a_figure_is_told_or_refused_with_a_code(nvml: Nvml, call: str, arguments: tuple[int, ...]) -> None:
    for handle in handles(nvml):
        code = code_of(lambda handle=handle: getattr(nvml, call)(handle, *arguments))
        assert code not in DRIVER_GONE | DEVICE_GONE


def test_what_is_told_is_in_the_units_that_are_promised(nvml: Nvml) -> None:
    for gpu in GpuReader(nvml).read().gpus:
        assert gpu.state is GpuState.OK
        assert gpu.total_gb is None or 0.5 < gpu.total_gb < 2000
        assert gpu.used_gb is None or 0 <= gpu.used_gb <= (gpu.total_gb or 0)
        assert gpu.utilization_percent is None or 0 <= gpu.utilization_percent <= 100
        assert gpu.temperature_c is None or 0 < gpu.temperature_c < 120
        assert gpu.slowdown_c is None or 50 < gpu.slowdown_c < 130
        assert gpu.power_w is None or 1 < gpu.power_w < 3000
        assert gpu.power_limit_w is None or 5 < gpu.power_limit_w < 3000
        assert gpu.ecc_corrected is None or gpu.ecc_corrected >= 0
        assert gpu.ecc_uncorrected is None or gpu.ecc_uncorrected >= 0
        assert all(isinstance(reason, ThrottleReason) for reason in gpu.throttled)
        for process in gpu.processes or ():
            assert process.pid > 0
            assert process.used_gb is None or process.used_gb <= (gpu.total_gb or 0)


def test_a_divided_gpu_tells_its_parts_and_no_other_one_has_any(nvml: Nvml) -> None:
    for gpu in GpuReader(nvml).read().gpus:
        assert gpu.mig_enabled or gpu.mig == ()
        assert len({part.uuid for part in gpu.mig}) == len(gpu.mig)
        assert sum(part.total_gb or 0 for part in gpu.mig) <= (gpu.total_gb or 0)


def test_two_readings_agree_on_what_does_not_change(nvml: Nvml) -> None:
    reader = GpuReader(nvml)
    first, second = reader.read(), reader.read()
    assert first.driver == second.driver != ""
    assert [(gpu.uuid, gpu.name, gpu.total_gb) for gpu in first.gpus] == [
        (gpu.uuid, gpu.name, gpu.total_gb) for gpu in second.gpus
    ]
    assert total_vram(first.gpus).total_gb > 0


@pytest.mark.parametrize("call", [name for name in vars(Nvml) if name.startswith("nvml")])
def test_the_binding_has_each_call_of_the_port_with_its_arguments(call: str) -> None:
    asked = list(inspect.signature(getattr(Nvml, call)).parameters)[1:]
    function = inspect.unwrap(getattr(pynvml, call))
    inspect.signature(function).bind(*asked)


def test_without_a_driver_the_library_is_not_found_and_that_is_no_gpu() -> None:
    """The real binding, on a machine without an NVIDIA driver."""
    nvml = driver()
    code = code_of(nvml.nvmlInit)
    if code == 0:
        nvml.nvmlShutdown()
        pytest.skip("this machine has a driver")
    assert code == NO_LIBRARY
    reading = GpuReader(nvml).read()
    assert (reading.gpus, reading.error, reading.driver) == ((), "", "")
    assert total_vram(reading.gpus).device == "No GPU"
