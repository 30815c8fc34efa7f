"""What monitors and heartbeats say of the platform, as sockets and polling see it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import pytest_asyncio

from reverie_gateway.nodes import NodeBoard
from reverie_gateway.status import total_vram
from reverie_protocol.jobs import Vram, WorkerState
from reverie_protocol.nodes import Gpu, GpuProcess, NodeStatus
from reverie_protocol.server_messages import QueueState, StorageHealth, SystemStatus
from reverie_protocol.subjects import SYSTEM_STATUS
from reverie_runtime.bus.port import Message

EVENT_TIMEOUT_S = 20.0
pytestmark = pytest.mark.asyncio(loop_scope="module")

T4 = Vram(
    device="Tesla T4",
    total_gb=15.0,
    allocated_gb=0.98,
    used_gb=1.39,
    available_gb=13.61,
    usage_percent=9.3,
)


def said(node: str = "n1", vram: Vram = T4, *, used_gb: float = 1.39, temperature_c: float = 40.0) -> bytes:
    """`system.status` of one monitor."""
    gpu = Gpu(
        index=0,
        uuid="GPU-1",
        name="Tesla T4",
        total_gb=15.0,
        used_gb=used_gb,
        temperature_c=temperature_c,
        processes=(GpuProcess(pid=7, used_gb=1.0),),
    )
    status = SystemStatus(
        mode=None,
        vram=vram,
        storage=StorageHealth(ok=True, provider="filesystem"),
        queue_state=QueueState(pending=0, running=0, depth=0),
        nodes=(NodeStatus(node=node, vram=vram, gpus=(gpu,) if vram.total_gb else ()),),
    )
    return msgspec.json.encode(status)


async def status_of(gateway):
    return (await gateway.http.get("/v1/system/status")).json()


async def polled(gateway, condition):
    """What polling shows once the condition is met."""
    async with asyncio.timeout(EVENT_TIMEOUT_S):
        while not condition(status := await status_of(gateway)):
            pass
    return status


@pytest_asyncio.fixture(loop_scope="module")
async def own(own_stage):
    """A gateway and a worker of this test's own."""
    gateway, worker = await own_stage.gateway(), await own_stage.worker()
    return gateway, worker


async def test_the_memory_of_a_node_is_what_its_monitor_says_and_what_workers_say_without_one(own):
    gateway, worker = own
    async with gateway.socket() as client:
        while not (status := await client.until("system:status"))["workers"]:
            pass
        assert (status["vram"]["device"], status["nodes"]) == ("Bench", [])
        await worker.bus.publish(SYSTEM_STATUS, said())
        while not (status := await client.until("system:status"))["nodes"]:
            pass
        assert status["vram"] == msgspec.to_builtins(T4)
        [node] = status["nodes"]
        assert (node["node"], node["gpus"][0]["temperatureC"]) == ("n1", 40.0)
        assert "processes" not in node["gpus"][0], "what runs on a machine is no client's business"
    assert (await status_of(gateway))["vram"]["total_gb"] == 15.0


async def test_figures_that_only_travel_along_push_nothing_but_are_fresh_for_who_asks(own):
    gateway, worker = own
    async with gateway.socket() as client:
        await worker.bus.publish(SYSTEM_STATUS, said())
        while not (await client.until("system:status"))["nodes"]:
            pass
        await worker.bus.publish(SYSTEM_STATUS, said(temperature_c=71.0))
        await polled(gateway, lambda status: status["nodes"][0]["gpus"][0]["temperatureC"] == 71.0)
        more = Vram(device="Tesla T4", total_gb=15.0, used_gb=9.0, available_gb=6.0, usage_percent=60.0)
        await worker.bus.publish(SYSTEM_STATUS, said(vram=more, temperature_c=72.0))
        while (status := await client.until("system:status"))["vram"]["used_gb"] != 9.0:
            pass
        assert status["nodes"][0]["gpus"][0]["temperatureC"] == 72.0
        pushed = [message for message in client.seen if message["type"] == "system:status"]
        assert 71.0 not in [
            gpu["temperatureC"] for m in pushed for node in m["nodes"] for gpu in node["gpus"]
        ]


async def test_a_monitor_without_a_gpu_leaves_the_memory_to_the_workers(own):
    gateway, worker = own
    async with gateway.socket() as client:
        await worker.bus.publish(SYSTEM_STATUS, said(vram=Vram()))
        while not (status := await client.until("system:status"))["nodes"] or not status["workers"]:
            pass
    assert (await status_of(gateway))["vram"]["device"] == "Bench"


async def test_a_machine_without_a_monitor_counts_by_what_its_worker_says(own, own_stage):
    gateway, worker = own
    await worker.beat(node="n1")
    await worker.bus.publish(SYSTEM_STATUS, said("n1"))
    assert (await polled(gateway, lambda status: status["nodes"]))["vram"]["device"] == "Tesla T4"
    other = await own_stage.worker(name="other")
    await other.beat(node="n2", vram=Vram(device="A100", total_gb=80.0, used_gb=8.0, available_gb=72.0))
    status = await polled(gateway, lambda status: status["vram"]["total_gb"] > 15.0)
    assert (status["vram"]["device"], status["vram"]["total_gb"]) == ("Tesla T4, A100", 95.0)
    await worker.bus.publish(SYSTEM_STATUS, said("n2", Vram(device="A100", total_gb=80.0, used_gb=9.0)))
    status = await polled(gateway, lambda status: len(status["nodes"]) == 2)
    assert (status["vram"]["total_gb"], status["vram"]["used_gb"]) == (95.0, 10.39)


async def test_a_monitor_that_talks_nonsense_changes_nothing(own):
    gateway, worker = own
    await worker.bus.publish(SYSTEM_STATUS, said())
    await polled(gateway, lambda status: status["nodes"])
    for nonsense in (b"", b"{", b'{"type":"system:status"}', b"\xff", b"[" * 10_000):
        await worker.bus.publish(SYSTEM_STATUS, nonsense)
    await worker.bus.publish(SYSTEM_STATUS, said("n2"))
    status = await polled(gateway, lambda status: len(status["nodes"]) == 2)
    assert status["vram"]["total_gb"] == 30.0


async def test_a_node_whose_monitor_is_silent_is_not_there_any_more(virtual_clock):
    board = NodeBoard(clock=virtual_clock)
    heard = []
    board.listen(lambda: heard.append(None))
    board.on_status(Message(SYSTEM_STATUS, said()))
    assert ([node.node for node in board.nodes], len(heard)) == (["n1"], 1)
    await virtual_clock.advance(16.0)
    assert board.nodes == ()


async def test_several_nodes_are_counted_together():
    other = Vram(device="A100", total_gb=80.0, used_gb=8.0, available_gb=72.0, usage_percent=10.0)
    total = total_vram([T4, Vram(), other])
    assert (total.device, total.total_gb, total.used_gb) == ("Tesla T4, A100", 95.0, 9.39)
    assert total_vram([]) == Vram()


async def test_the_workers_there_are_come_on_connect_and_as_they_change(own):
    gateway, worker = own
    async with gateway.socket() as client:
        while not (backends := await client.until("system:backends"))["available"]:
            pass
        [backend] = backends["available"]
        assert backend["name"] == worker.record.name
        assert (backend["state"], backend["modes"], backend["running"]) == ("ready", ["tiny"], 0)
        await worker.beat(state=WorkerState.DRAINING)
        while (await client.until("system:backends"))["available"][0]["state"] != "draining":
            pass
        async with gateway.socket() as second:
            [backend] = (await second.until("system:backends"))["available"]
            assert backend["state"] == "draining"
        count = len([message for message in client.seen if message["type"] == "system:backends"])
        for used_gb in (3.0, 3.5, 4.0):
            await worker.beat(vram=Vram(device="Bench", total_gb=8.0, used_gb=used_gb))
        await worker.beat(state=WorkerState.READY)
        while (await client.until("system:backends"))["available"][0]["state"] != "ready":
            pass
        assert len([m for m in client.seen if m["type"] == "system:backends"]) == count + 1, (
            "memory is no news"
        )
