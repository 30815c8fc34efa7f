"""What `reverie status` says of machines and GPUs."""

from __future__ import annotations

from reverie_launcher.node_rows import node_rows
from reverie_protocol.nodes import Disk, Gpu, GpuState, Host, NodeStatus, ServiceHealth, ThrottleReason

HOST = Host(cores=8, cpu_percent=1.0, load=0.1, memory_total_gb=64.0, memory_available_gb=60.0)


def shown(*nodes: NodeStatus) -> list[tuple[str, str]]:
    return [(name, text.plain) for name, text in node_rows(nodes)]


def test_a_node_shows_its_memory_its_disk_and_its_gpus() -> None:
    gpu = Gpu(
        index=0,
        uuid="GPU-1",
        name="Tesla T4",
        total_gb=15.0,
        used_gb=1.39,
        utilization_percent=93.0,
        temperature_c=40.0,
        power_w=26.8,
        throttled=(ThrottleReason.POWER_CAP,),
    )
    node = NodeStatus(
        node="n1", gpus=(gpu,), host=HOST, disk=Disk(path="/data", total_gb=100.0, free_gb=75.2)
    )
    assert shown(node) == [
        ("node", "n1, 4.0 of 64.0 GB of memory, 75 GB free on the disk"),
        ("GPU 0", "Tesla T4, 1.4 of 15.0 GB, 93 %, 40 °C, 27 W  sw_power_cap"),
    ]


def test_what_is_not_told_is_left_out_and_trouble_is_said() -> None:
    node = NodeStatus(
        node="n1",
        driver_error="NVML hangs",
        gpus=(
            Gpu(index=0, uuid="GPU-1", name="NVIDIA GeForce GT 1030"),
            Gpu(index=1, uuid="GPU-2", name="Tesla T4", state=GpuState.LOST, detail="it fell off the bus"),
        ),
        services=(ServiceHealth(name="gateway", ok=False, reason="it is starting"),),
    )
    assert shown(node) == [
        ("node", "n1  NVML hangs  gateway: it is starting"),
        ("GPU 0", "NVIDIA GeForce GT 1030"),
        ("GPU 1", "Tesla T4, lost: it fell off the bus"),
    ]


def test_without_a_monitor_it_says_that_nobody_watches() -> None:
    assert shown() == [("monitor", "none is running")]
