"""GPUs as recordings of real ones tell them, and what becomes of them when a driver fails."""

from __future__ import annotations

from typing import Any

import pytest

from reverie_monitor.gpu.reader import GpuReader, total_vram
from reverie_monitor.gpu.recording import RecordedNvml
from reverie_protocol.jobs import Vram
from reverie_protocol.nodes import GpuState, ThrottleReason


def reader_of(recording: Any) -> GpuReader:
    return GpuReader(RecordedNvml(recording.path))


def test_a_tesla_t4_tells_everything(recording: Any) -> None:
    reading = reader_of(recording("tesla-t4")).read()
    (gpu,) = reading.gpus
    assert (reading.driver, gpu.name, gpu.index) == ("515.105.01", "Tesla T4", 0)
    assert (gpu.total_gb, gpu.used_gb) == (15.0, 1.39)
    assert (gpu.temperature_c, gpu.slowdown_c, gpu.power_w, gpu.power_limit_w) == (40, 93, 26.8, 70.0)
    assert (gpu.ecc_corrected, gpu.ecc_uncorrected, gpu.throttled) == (0, 0, ())
    assert [(process.pid, process.used_gb) for process in gpu.processes or ()] == [(5762, 0.98)]
    assert total_vram(reading.gpus) == Vram(
        device="Tesla T4",
        total_gb=15.0,
        allocated_gb=0.98,
        used_gb=1.39,
        available_gb=13.61,
        usage_percent=9.3,
    )


def test_what_a_geforce_does_not_tell_is_absent_and_not_zero(recording: Any) -> None:
    (gpu,) = reader_of(recording("geforce-gt-1030")).read().gpus
    assert (gpu.power_w, gpu.ecc_corrected, gpu.ecc_uncorrected) == (None, None, None)
    assert (gpu.utilization_percent, gpu.power_limit_w) == (0, 30.0)


def test_a_divided_a100_has_its_parts_and_no_utilisation(recording: Any) -> None:
    (gpu,) = reader_of(recording("a100-mig")).read().gpus
    assert gpu.mig_enabled
    assert gpu.utilization_percent is None
    assert [part.index for part in gpu.mig] == [0, 1, 2, 3]
    assert {part.total_gb for part in gpu.mig} == {19.5}


def test_two_gpus_are_counted_together(recording: Any) -> None:
    vram = total_vram(reader_of(recording("two-rtx-2070")).read().gpus)
    assert vram.device == "NVIDIA GeForce RTX 2070, NVIDIA GeForce RTX 2070"
    assert (vram.total_gb, vram.used_gb, vram.available_gb) == (16.0, 0.8, 15.2)


@pytest.mark.parametrize(
    "code", ["NOT_SUPPORTED", "NO_PERMISSION", "UNKNOWN", "FUNCTION_NOT_FOUND", "NO_DATA"]
)
def test_whatever_figure_is_refused_the_others_are_there(recording: Any, code: str) -> None:
    tape = recording("tesla-t4")
    reader = reader_of(tape)
    whole = reader.read().gpus[0]
    for call in [name for name in tape.content["devices"][0] if not name.endswith("UUID")]:
        kept = tape.content["devices"][0][call]
        tape.answer(call, {"error": code})
        (gpu,) = reader.read().gpus
        assert gpu.state is GpuState.OK, call
        assert gpu != whole or kept in ({"error": "NOT_SUPPORTED"}, 0), call
        tape.answer(call, kept)
    assert reader.read().gpus == (whole,)


def test_a_gpu_whose_memory_is_not_told_counts_as_none_of_it(recording: Any) -> None:
    tape = recording("tesla-t4")
    tape.answer("nvmlDeviceGetMemoryInfo", {"error": "NOT_SUPPORTED"})
    vram = total_vram(reader_of(tape).read().gpus)
    assert (vram.device, vram.total_gb, vram.usage_percent) == ("Tesla T4", 0.0, 0.0)


def test_reasons_to_slow_down_are_named_and_idling_is_none(recording: Any) -> None:
    tape = recording("tesla-t4")
    tape.answer("nvmlDeviceGetCurrentClocksThrottleReasons", 0x1 | 0x8 | 0x40 | 0x4)
    (gpu,) = reader_of(tape).read().gpus
    assert set(gpu.throttled) == {
        ThrottleReason.HARDWARE,
        ThrottleReason.HARDWARE_THERMAL,
        ThrottleReason.POWER_CAP,
    }


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetTemperature(0)"]
)
@pytest.mark.parametrize("code", ["GPU_IS_LOST", "RESET_REQUIRED"])
def test_a_gpu_that_fell_off_the_bus_is_lost_and_the_other_one_goes_on(
    recording: Any, call: str, code: str
) -> None:
    tape = recording("two-rtx-2070")
    reader = reader_of(tape)
    first, second = reader.read().gpus
    tape.answer(call, {"error": code}, gpu=0)
    lost, kept = reader.read().gpus
    assert (lost.state, lost.uuid, lost.name, lost.total_gb) == (GpuState.LOST, first.uuid, first.name, None)
    assert "says" in lost.detail
    assert kept == second
    assert total_vram((lost, kept)).total_gb == 8.0


def test_a_gpu_that_the_driver_no_longer_lists_is_lost_until_it_is_back(recording: Any) -> None:
    tape = recording("two-rtx-2070")
    reader = reader_of(tape)
    first, second = reader.read().gpus
    gone = tape.content["devices"].pop(0)
    tape.call("nvmlDeviceGetCount", 1)
    states = {gpu.uuid: gpu.state for gpu in reader.read().gpus}
    assert states == {first.uuid: GpuState.LOST, second.uuid: GpuState.OK}
    tape.content["devices"].insert(0, gone)
    tape.call("nvmlDeviceGetCount", 2)
    assert reader.read().gpus == (first, second)


@pytest.mark.parametrize("code", ["DRIVER_NOT_LOADED", "LIB_RM_VERSION_MISMATCH", "UNINITIALIZED", "UNKNOWN"])
def test_a_driver_that_is_unloaded_loses_all_gpus_and_is_tried_again(recording: Any, code: str) -> None:
    tape = recording("two-rtx-2070")
    reader = reader_of(tape)
    whole = reader.read()
    tape.call("nvmlInit", {"error": code})
    tape.call("nvmlDeviceGetCount", {"error": code})
    for _ in range(2):
        reading = reader.read()
        assert reading.error
        assert {gpu.state for gpu in reading.gpus} == {GpuState.LOST}
        assert total_vram(reading.gpus) == Vram()
    tape.call("nvmlInit", None)
    tape.call("nvmlDeviceGetCount", 2)
    assert reader.read() == whole


def test_a_gpu_that_was_lost_before_anybody_looked_is_lost_without_a_name(recording: Any) -> None:
    tape = recording("two-rtx-2070")
    tape.answer("nvmlDeviceGetHandleByIndex", {"error": "GPU_IS_LOST"}, gpu=0)
    reader = reader_of(tape)
    lost, kept = reader.read().gpus
    assert (lost.index, lost.state, lost.uuid, kept.state) == (0, GpuState.LOST, "unknown-0", GpuState.OK)
    tape.answer("nvmlDeviceGetHandleByIndex", None, gpu=0)
    assert [gpu.state for gpu in reader.read().gpus] == [GpuState.OK, GpuState.OK]


def test_a_gpu_that_we_may_not_read_is_somebody_elses(recording: Any) -> None:
    tape = recording("two-rtx-2070")
    tape.answer("nvmlDeviceGetHandleByIndex", {"error": "NO_PERMISSION"}, gpu=0)
    assert [gpu.index for gpu in reader_of(tape).read().gpus] == [1]


def test_a_driver_that_is_not_loaded_at_the_start_is_said_and_no_gpu_is_lost(recording: Any) -> None:
    tape = recording("tesla-t4")
    tape.call("nvmlInit", {"error": "DRIVER_NOT_LOADED"})
    reading = reader_of(tape).read()
    assert reading.gpus == ()
    assert "Driver Not Loaded" in reading.error


def test_closing_is_harmless_however_often(recording: Any) -> None:
    reader = reader_of(recording("tesla-t4"))
    reader.close()
    reader.read()
    reader.close()
    reader.close()
    assert len(reader.read().gpus) == 1
