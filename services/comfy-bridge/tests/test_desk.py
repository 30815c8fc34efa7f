"""What a bridge answers gateways: could this run, and what is there to choose from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from reverie_comfy_bridge.work.desk import Desk, Offer
from reverie_comfy_bridge.workflows.catalogue import SHIPPED, read_folder
from reverie_comfy_bridge.workflows.node_classes import read_node_classes
from reverie_comfy_bridge.workflows.safe_nodes import SAFE_NODES
from reverie_protocol.comfy import ComfyCheck, ComfyVerdict, ComfyWorkflows
from reverie_protocol.jobs import ComfyParams
from reverie_protocol.subjects import COMFY_CHECK, COMFY_WORKFLOWS
from reverie_runtime.bus.memory import MemoryBus
from reverie_runtime.bus.memory_server import MemoryServer
from reverie_runtime.clock import SystemClock

OBJECT_INFO = json.loads((Path(__file__).parent / "data" / "object_info.json").read_text())
CLASSES = read_node_classes(OBJECT_INFO)
FEWER = read_node_classes({name: info for name, info in OBJECT_INFO.items() if name != "KSampler"})
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
PICTURE = ComfyParams(workflowId="text_to_image", params={"prompt": "x"})


@asynccontextmanager
async def desk_of(server: MemoryServer, *offers: Offer, **options: Any) -> AsyncIterator[None]:
    catalogue = read_folder(SHIPPED)
    desk = Desk(
        MemoryBus(server),
        catalogue=lambda: catalogue,
        offers=lambda: offers,
        allowed_nodes=SAFE_NODES,
        clock=SystemClock(),
        **options,
    )
    async with desk.run():
        yield


async def asked(server: MemoryServer, params: ComfyParams, *, graphs: bool = False) -> ComfyVerdict:
    question = msgspec.json.encode(ComfyCheck(params=params, may_send_graphs=graphs))
    reply = await MemoryBus(server).request(COMFY_CHECK, question, timeout=10)
    return msgspec.json.decode(reply.data, type=ComfyVerdict)


async def test_one_instance_that_can_is_enough() -> None:
    server = MemoryServer()
    async with desk_of(server, Offer("small", FEWER), Offer("gpu", CLASSES)):
        assert await asked(server, PICTURE) == ComfyVerdict()
    async with desk_of(server, Offer("small", FEWER)):
        refused = await asked(server, PICTURE)
        assert (refused.code, refused.node_errors[0].type) == ("workflow_invalid", "missing_node_type")
    async with desk_of(server):
        assert (await asked(server, PICTURE)).code == "comfy_unreachable"


async def test_an_unknown_workflow_is_refused_with_the_names_there_are() -> None:
    server = MemoryServer()
    async with desk_of(server, Offer("gpu", CLASSES)):
        refused = await asked(server, ComfyParams(workflowId="txt2img"))
        assert refused.code == "workflow_not_found"
        assert "text_to_image" in refused.message
        wrong = await asked(server, ComfyParams(workflowId="text_to_image", params={"steps": 0}))
        assert {field.loc for field in wrong.fields} == {("params", "prompt"), ("params", "steps")}


async def test_graphs_of_ones_own_need_the_right_and_nodes_on_the_list() -> None:
    server = MemoryServer()
    async with desk_of(server, Offer("gpu", CLASSES)):
        assert (await asked(server, ComfyParams(workflow=GRAPH))).code == "forbidden"
        assert await asked(server, ComfyParams(workflow=GRAPH), graphs=True) == ComfyVerdict()
        odd = {**GRAPH, "3": {"class_type": "RunPython", "inputs": {}}}
        refused = await asked(server, ComfyParams(workflow=odd), graphs=True)
        assert refused.node_errors[0].type == "node_not_allowed"


async def test_a_bridge_that_can_is_heard_before_one_that_cannot() -> None:
    server = MemoryServer()
    async with (
        desk_of(server, others=lambda: True),
        desk_of(server, Offer("small", FEWER), others=lambda: True),
        desk_of(server, Offer("gpu", CLASSES), others=lambda: True),
    ):
        for _ in range(5):
            assert await asked(server, PICTURE) == ComfyVerdict()


async def test_the_workflows_say_where_they_run_and_why_not_elsewhere() -> None:
    server = MemoryServer()
    async with desk_of(server, Offer("gpu", CLASSES), Offer("small", FEWER)):
        reply = await MemoryBus(server).request(COMFY_WORKFLOWS, b"", timeout=10)
    found = {each.id: each for each in msgspec.json.decode(reply.data, type=ComfyWorkflows).workflows}
    assert found.keys() == {"filters", "image_to_image", "text_to_image", "upscale"}
    picture = found["text_to_image"]
    assert (picture.available, list(picture.unavailable), picture.outputs) == (
        ("gpu",),
        ["small"],
        ("images",),
    )
    assert "KSampler" in picture.unavailable["small"]
    assert picture.params["properties"]["checkpoint"]["enum"] == [  # type: ignore[index]  # a schema
        "tiny.safetensors",
        "other.safetensors",
        None,
    ]
    assert (found["filters"].available, found["filters"].input_image) == (("gpu", "small"), "optional")


async def test_a_question_that_cannot_be_read_is_passed_over() -> None:
    server = MemoryServer()
    async with desk_of(server, Offer("gpu", CLASSES)):
        await MemoryBus(server).publish(COMFY_CHECK, b"{")
        assert await asked(server, PICTURE) == ComfyVerdict()


async def test_an_answer_that_nats_could_not_carry_leaves_out_what_the_instances_have() -> None:
    many = json.loads(json.dumps(OBJECT_INFO))
    loader = many["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
    loader[0] = [f"models/of/somebody/{number:05}.safetensors" for number in range(20_000)]
    server = MemoryServer()
    async with desk_of(server, Offer("gpu", read_node_classes(many))):
        reply = await MemoryBus(server).request(COMFY_WORKFLOWS, b"", timeout=10)
    assert len(reply.data) < 100_000
    found = {each.id: each for each in msgspec.json.decode(reply.data, type=ComfyWorkflows).workflows}
    assert found["text_to_image"].available == ("gpu",)
