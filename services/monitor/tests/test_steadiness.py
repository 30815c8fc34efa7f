"""What is told only if it has changed by enough, and what travels along."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reverie_monitor.steadiness import steadied, with_travellers
from reverie_protocol.jobs import Vram
from reverie_protocol.nodes import Gpu, GpuProcess, GpuState, Host, NodeStatus
from reverie_protocol.server_messages import QueueState, StorageHealth, SystemStatus

HOST = Host(cores=8, cpu_percent=1.0, load=0.1, memory_total_gb=64.0, memory_available_gb=40.0)
GPU = Gpu(index=0, uuid="GPU-1", name="Tesla T4", total_gb=16.0, used_gb=4.0, temperature_c=60.0)


def vram(used_gb: float) -> Vram:
    return Vram(
        device="Tesla T4",
        total_gb=16.0,
        used_gb=used_gb,
        available_gb=round(16 - used_gb, 3),
        usage_percent=round(100 * used_gb / 16, 1),
    )


def status(gpu: Gpu = GPU, host: Host | None = HOST, *, pending: int = 0, mode: str = "tiny") -> SystemStatus:
    return SystemStatus(
        mode=mode,
        vram=vram(gpu.used_gb or 0.0),
        storage=StorageHealth(ok=True, provider="filesystem"),
        queue_state=QueueState(pending=pending, running=0, depth=pending),
        workers=1,
        version="1",
        nodes=(NodeStatus(node="n", vram=vram(gpu.used_gb or 0.0), gpus=(gpu,), host=host),),
    )


@given(
    st.floats(-0.05, 0.05), st.floats(-1.4, 1.4), st.floats(0, 100), st.floats(-0.2, 0.2), st.integers(0, 9)
)
def test_jitter_is_no_news(used: float, warmth: float, busy: float, memory: float, pending: int) -> None:
    gpu = replace(
        GPU, used_gb=4.0 + used, temperature_c=60.0 + warmth, utilization_percent=busy, power_w=busy
    )
    host = replace(HOST, memory_available_gb=40.0 + memory, cpu_percent=busy, load=busy)
    assert steadied(status(), status(gpu, host, pending=pending)) == status()


def test_slow_drift_is_told_when_it_has_come_far_enough() -> None:
    told = status()
    tellings = 0
    for step in range(100):
        steady = steadied(told, status(replace(GPU, used_gb=4.0 + step * 0.01)))
        tellings += steady != told
        told = steady
    assert 8 <= tellings <= 10
    assert abs(told.vram.used_gb - 4.99) < 0.1


def test_a_record_of_memory_is_told_whole_or_not_at_all() -> None:
    told = steadied(vram(4.0), vram(4.05))
    assert told == vram(4.0)
    assert steadied(told, vram(4.11)) == vram(4.11)


def test_what_is_no_figure_is_always_news() -> None:
    lost = status(Gpu(index=0, uuid="GPU-1", name="Tesla T4", state=GpuState.LOST))
    for news in (status(mode="other"), lost, status(host=None), replace(status(), nodes=())):
        assert steadied(status(), news) == news


def test_what_travels_along_is_fresh_in_whatever_is_told_and_the_rest_as_it_was() -> None:
    now = status(
        replace(GPU, used_gb=4.04, utilization_percent=93.0, processes=(GpuProcess(pid=7, used_gb=2.0),)),
        pending=5,
    )
    told = with_travellers(steadied(status(), now), now)
    assert told.vram == vram(4.0)
    assert told.nodes[0].gpus[0].used_gb == 4.0
    assert told.nodes[0].gpus[0].utilization_percent == 93.0
    assert told.nodes[0].gpus[0].processes == (GpuProcess(pid=7, used_gb=2.0),)
    assert told.queue_state.pending == 5
    assert steadied(told, now) == told


def test_the_first_is_told_as_it_is() -> None:
    assert steadied(None, status()) == status()
