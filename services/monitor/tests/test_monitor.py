"""A monitor on a real bus: what it says, when, and what it survives."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import msgspec
import pytest

from reverie_monitor.measuring import Measuring
from reverie_protocol.jobs import JobType, WorkerState
from reverie_protocol.nodes import GpuState
from reverie_protocol.server_messages import QueueMirror
from reverie_protocol.subjects import QUEUE_STATE
from reverie_runtime.bus.port import Bus
from reverie_runtime.health import Health, health_app
from reverie_runtime.http_server import serve_http
from reverie_runtime.metrics import Metrics


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done every few seconds is done at each turn."""
    monkeypatch.setattr("reverie_monitor.measuring.SELDOM_S", 0.0)
    monkeypatch.setattr("reverie_monitor.service.STATUS_REPEAT_S", 0.2)


def code(wanted: str, *, resolved: bool = False) -> Any:
    return lambda alert: alert.code == wanted and alert.resolved is resolved


async def test_without_a_gpu_it_says_no_gpu_with_zeros(stage: Any) -> None:
    await stage.monitor()
    status = await stage.status.sees(lambda _: True)
    vram = status.vram
    assert vram.device == "No GPU"
    assert (vram.total_gb, vram.allocated_gb, vram.used_gb, vram.available_gb, vram.usage_percent) == (0,) * 5
    assert (status.mode, status.workers, status.storage.ok) == (None, 0, True)
    (node,) = status.nodes
    assert (node.node, node.gpus, node.driver, node.driver_error) == ("bench", (), "", "")
    assert node.host.memory_total_gb > node.host.memory_available_gb > 0
    assert node.host.cores >= 1
    assert node.disk.total_gb >= node.disk.free_gb > 0


async def test_the_gpus_workers_and_queue_are_told(stage: Any, often: None) -> None:
    await stage.monitor(stage.recording("tesla-t4"))
    async with stage.beating():
        status = await stage.status.sees(lambda status: status.workers == 1)
    assert (status.vram.device, status.vram.total_gb, status.mode) == ("Tesla T4", 15.0, "tiny")
    (backend,) = (await stage.backends.sees(lambda backends: backends.available)).available
    assert (backend.name, backend.state, backend.job_types) == (
        "painter",
        WorkerState.READY,
        (JobType.GENERATE,),
    )
    await stage.bus.publish(QUEUE_STATE, queue(pending=3, seq=7))
    status = await stage.status.sees(lambda status: status.queue_state.pending == 3)
    assert (status.queue_state.running, status.queue_state.jobs) == (1, ())


async def test_of_two_gateways_the_one_that_lags_is_not_believed(stage: Any, often: None) -> None:
    await stage.monitor()
    await stage.status.sees(lambda _: True)
    await stage.bus.publish(QUEUE_STATE, queue(pending=3, seq=7))
    await stage.status.sees(lambda status: status.queue_state.pending == 3)
    await stage.bus.publish(QUEUE_STATE, queue(pending=9, seq=6))
    for _ in range(3):
        told = await stage.status.sees(lambda _: True, after=len(stage.status.all))
        assert told.queue_state.pending == 3
    await stage.bus.publish(QUEUE_STATE, queue(pending=5, seq=1, epoch="another"))
    await stage.status.sees(lambda status: status.queue_state.pending == 5)


def queue(*, pending: int, seq: int, epoch: str = "one") -> bytes:
    """The queue with one running job as a gateway tells it."""
    return msgspec.json.encode(
        QueueMirror(
            pending=pending, running=1, depth=pending + 1, paused=False, jobs=(), seq=seq, epoch=epoch
        )
    )


async def test_a_change_is_told_and_jitter_is_not(stage: Any) -> None:
    tape = stage.recording("tesla-t4")
    await stage.monitor(tape)
    await stage.status.sees(lambda _: True)
    memory = dict(tape.content["devices"][0]["nvmlDeviceGetMemoryInfo"])
    for megabytes in (3, -3, 5, -5, 8):
        tape.answer("nvmlDeviceGetMemoryInfo", {**memory, "free": memory["free"] - (megabytes << 20)})
        await asyncio.sleep(0.12)  # long enough to be measured: nothing comes that could be waited for
    assert {status.vram.used_gb for status in stage.status.all} == {1.39}
    tape.answer("nvmlDeviceGetMemoryInfo", {**memory, "free": memory["free"] - (2 << 30)})
    told = await stage.status.sees(lambda status: status.vram.used_gb > 3)
    assert told.vram.used_gb == told.nodes[0].vram.used_gb == told.nodes[0].gpus[0].used_gb == 3.39


async def test_what_did_not_change_is_told_again_regularly(stage: Any, often: None) -> None:
    await stage.monitor(stage.recording("tesla-t4"))
    await stage.status.sees(lambda _: True)
    already = len(stage.status.all)
    again = await stage.status.sees(lambda _: True, after=already)
    assert again.vram == stage.status.all[0].vram


async def test_a_hot_gpu_is_an_alert_that_is_repeated_until_it_is_over(stage: Any) -> None:
    tape = stage.recording("tesla-t4")
    await stage.monitor(tape, repeat_s=1.0)
    tape.answer("nvmlDeviceGetTemperature(0)", 90)
    alert = await stage.alerts.sees(code("gpu_hot"))
    assert (alert.level, alert.value, alert.threshold, alert.unit) == ("warning", 90.0, 87.0, "°C")
    assert alert.source == "monitor/bench"
    repeated = await stage.alerts.sees(code("gpu_hot"), after=stage.alerts.all.index(alert) + 1)
    assert repeated == alert
    tape.answer("nvmlDeviceGetTemperature(0)", 60)
    over = await stage.alerts.sees(code("gpu_hot", resolved=True))
    assert over.key == alert.key


async def test_a_gpu_that_is_lost_is_an_alert_and_its_memory_counts_no_more(stage: Any) -> None:
    tape = stage.recording("two-rtx-2070")
    await stage.monitor(tape)
    await stage.status.sees(lambda status: status.vram.total_gb == 16.0)
    tape.answer("nvmlDeviceGetHandleByIndex", {"error": "GPU_IS_LOST"}, gpu=1)
    alert = await stage.alerts.sees(code("gpu_lost"))
    assert "GPU 1 (NVIDIA GeForce RTX 2070) is lost" in alert.message
    status = await stage.status.sees(lambda status: status.vram.total_gb == 8.0)
    assert [gpu.state for gpu in status.nodes[0].gpus] == [GpuState.OK, GpuState.LOST]
    tape.answer("nvmlDeviceGetHandleByIndex", None, gpu=1)
    await stage.alerts.sees(code("gpu_lost", resolved=True))


async def test_a_worker_that_went_without_a_word_is_an_alert_and_one_that_said_good_bye_is_none(
    stage: Any,
) -> None:
    await stage.monitor(worker_silent_s=3.0)
    async with stage.beating("painter"):
        async with stage.beating("polite"):
            await stage.status.sees(lambda status: status.workers == 2)
        await stage.says_good_bye("polite")
    alert = await stage.alerts.sees(code("worker_gone"))
    assert "painter" in alert.message
    await stage.beat("painter", incarnation="2")
    await stage.alerts.sees(code("worker_gone", resolved=True))
    assert {alert.key for alert in stage.alerts.all} == {"monitor/bench/worker_gone:painter"}


async def test_a_store_that_cannot_be_written_is_told(stage: Any, often: None) -> None:
    await stage.monitor()
    folder = stage.folder / "storage"
    shutil.rmtree(folder)
    folder.write_text("a file where the folder was")
    assert not (await stage.status.sees(lambda status: not status.storage.ok)).storage.ok
    await stage.alerts.sees(code("storage_broken"))
    folder.unlink()
    await stage.alerts.sees(code("storage_broken", resolved=True))


async def test_a_service_that_is_not_ready_is_told_with_its_reason(stage: Any, often: None) -> None:
    health = Health()
    health.hold = "it is starting"
    app = health_app(health, Metrics())
    async with serve_http(app, host="127.0.0.1", port=0, setting="test") as (host, port):
        await stage.monitor(services=(f"gateway=http://{host}:{port}/ready",), service_down_s=0.0)
        status = await stage.status.sees(lambda status: status.nodes[0].services)
        (service,) = status.nodes[0].services
        assert (service.name, service.ok, service.reason) == ("gateway", False, "service: it is starting")
        await stage.alerts.sees(code("service_down"))
        health.hold = ""
        await stage.alerts.sees(code("service_down", resolved=True))
        begun = len(stage.alerts.all)
    alert = await stage.alerts.sees(code("service_down"), after=begun)
    assert "does not answer" in alert.message


async def test_after_an_outage_of_the_bus_everything_is_told_anew_and_no_worker_was_gone(stage: Any) -> None:
    tape = stage.recording("tesla-t4")
    monitor = await stage.monitor(tape, worker_silent_s=20.0)
    tape.answer("nvmlDeviceGetTemperature(0)", 90)
    await stage.beat()
    await stage.alerts.sees(code("gpu_hot"))
    stage.server.kill()
    measured = monitor.latest
    async with asyncio.timeout(20):
        while monitor.latest is measured:  # it goes on measuring
            await asyncio.sleep(0.05)
    heard = len(stage.status.all)
    stage.server.start()
    await reconnected(stage.bus)
    await stage.beat()
    await stage.status.sees(lambda _: True, after=heard)
    await stage.beat()
    assert "worker_gone" not in {alert.code for alert in stage.alerts.all}
    assert await stage.health.failures() == {}


async def test_what_the_bus_missed_is_told_as_soon_as_it_is_back(stage: Any) -> None:
    tape = stage.recording("tesla-t4")
    monitor = await stage.monitor(tape, repeat_s=3600.0)
    tape.answer("nvmlDeviceGetTemperature(0)", 90)
    alert = await stage.alerts.sees(code("gpu_hot"))
    heard = len(stage.status.all), len(stage.alerts.all)
    monitor.on_connection(False)
    monitor.on_connection(True)
    assert await stage.alerts.sees(code("gpu_hot"), after=heard[1]) == alert
    await stage.status.sees(lambda _: True, after=heard[0])


async def reconnected(bus: Bus) -> None:
    async with asyncio.timeout(30):
        while not bus.connected:
            await asyncio.sleep(0.02)


async def test_a_fault_of_ours_does_not_end_it(stage: Any, monkeypatch: Any) -> None:
    await stage.monitor()
    whole, faults = Measuring.round, asyncio.Event()

    async def stumbles(self: Measuring) -> Any:
        faults.set()
        raise RuntimeError("a defect")

    monkeypatch.setattr(Measuring, "round", stumbles)
    async with asyncio.timeout(20):
        await faults.wait()
    monkeypatch.setattr(Measuring, "round", whole)
    async with stage.beating():
        await stage.status.sees(lambda status: status.workers == 1)


async def test_the_figures_are_metrics_and_a_lost_gpu_keeps_none(stage: Any) -> None:
    tape = stage.recording("two-rtx-2070")
    await stage.monitor(tape)
    async with stage.beating():
        await stage.status.sees(lambda status: status.workers == 1)
        text = stage.metrics.render().decode()
    label = 'gpu="0",name="NVIDIA GeForce RTX 2070",uuid="GPU-12345678-aaaa-bbbb-cccc-0123456789ab"'
    assert f"reverie_gpu_temperature_celsius{{{label}}} 14.0" in text
    assert f"reverie_gpu_power_watts{{{label}}} 9.2" in text
    assert "reverie_gpu_ecc_corrected_errors{" not in text
    assert "reverie_workers 1.0" in text
    assert "reverie_storage_ok 1.0" in text
    tape.answer("nvmlDeviceGetHandleByIndex", {"error": "GPU_IS_LOST"})
    await stage.alerts.sees(code("gpu_lost"))
    text = stage.metrics.render().decode()
    assert f"reverie_gpu_up{{{label}}} 0.0" in text
    assert f"reverie_gpu_temperature_celsius{{{label}}}" not in text
    assert 'reverie_alerts{code="gpu_lost",level="critical"} 1.0' in text
