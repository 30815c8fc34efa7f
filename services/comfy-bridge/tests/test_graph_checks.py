"""Graphs against what an instance has: ComfyUI's objections, said before it is asked, and what is never sent."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from reverie_comfy_bridge.workflows.building import build
from reverie_comfy_bridge.workflows.catalogue import SHIPPED, read_folder
from reverie_comfy_bridge.workflows.checking import MAX_ERRORS, check_graph
from reverie_comfy_bridge.workflows.node_classes import read_node_classes
from reverie_comfy_bridge.workflows.offers import merged, verdict
from reverie_comfy_bridge.workflows.own_graphs import Rules, problems
from reverie_comfy_bridge.workflows.safe_nodes import SAFE_NODES
from reverie_protocol.jobs import ComfyParams

CLASSES = read_node_classes(json.loads((Path(__file__).parent / "data" / "object_info.json").read_text()))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def blank(**inputs: Any) -> dict[str, Any]:
    return node("EmptyImage", **{"width": 64, "height": 64, "batch_size": 1, "color": 0, **inputs})


def save(*source: Any, **inputs: Any) -> dict[str, Any]:
    return node("SaveImage", **{"images": list(source), "filename_prefix": "v", **inputs})


#: As recorded of ComfyUI, but that a link to nowhere is a bad link there too.
CASES = {
    "a class that is not there": ({"1": node("Nope"), "2": save("1", 0)}, [("1", "missing_node_type", "")]),
    "no output": ({"1": blank()}, [("", "prompt_no_outputs", "")]),
    "inputs left out": (
        {"1": node("EmptyImage", width=64, height=64), "2": save("1", 0)},
        [("1", "required_input_missing", "batch_size"), ("1", "required_input_missing", "color")],
    ),
    "too small": ({"1": blank(width=0), "2": save("1", 0)}, [("1", "value_smaller_than_min", "width")]),
    "too big": ({"1": blank(width=10**6), "2": save("1", 0)}, [("1", "value_bigger_than_max", "width")]),
    "no number": ({"1": blank(width="abc"), "2": save("1", 0)}, [("1", "invalid_input_type", "width")]),
    "null": ({"1": blank(width=None), "2": save("1", 0)}, [("1", "invalid_input_type", "width")]),
    "a number as text": ({"1": blank(width="64"), "2": save("1", 0)}, []),
    "no such choice": (
        {
            "1": blank(),
            "2": node(
                "ImageScale", image=["1", 0], upscale_method="magic", width=8, height=8, crop="disabled"
            ),
            "3": save("2", 0),
        },
        [("2", "value_not_in_list", "upscale_method")],
    ),
    "another type": (
        {"1": node("EmptyLatentImage", width=64, height=64, batch_size=1), "2": save("1", 0)},
        [("2", "return_type_mismatch", "images")],
    ),
    "half a link": ({"1": blank(), "2": save("1")}, [("2", "bad_linked_input", "images")]),
    "a link to nowhere": ({"2": save("1", 0)}, [("2", "bad_linked_input", "images")]),
    "a link to no output": ({"1": blank(), "2": save("1", 7)}, [("2", "bad_linked_input", "images")]),
    "a circle": (
        {
            "0": blank(),
            "1": node("ImageInvert", image=["2", 0]),
            "2": node("ImageInvert", image=["1", 0]),
            "3": save("1", 0),
            "4": save("0", 0),
        },
        [("1", "dependency_cycle", ""), ("2", "dependency_cycle", "")],
    ),
    "a node on itself": (
        {"1": node("ImageInvert", image=["1", 0]), "3": save("1", 0)},
        [("1", "dependency_cycle", "")],
    ),
    "what no output needs": ({"1": blank(), "2": save("1", 0), "3": blank(width=0)}, []),
    "one bad output of two": (
        {"1": blank(), "2": save("1", 0), "3": node("PreviewImage")},
        [("3", "required_input_missing", "images")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_comfyui_objects_to_is_said_by_node_and_field(case: str) -> None:
    graph, expected = CASES[case]
    assert [(error.node, error.type, error.field) for error in check_graph(graph, CLASSES)] == expected


def test_a_graph_as_large_as_may_be_is_checked_without_recursion() -> None:
    chain: dict[str, Any] = {"0": blank()}
    for number in range(1, 999):
        chain[str(number)] = node("ImageInvert", image=[str(number - 1), 0])
    assert check_graph({**chain, "end": save("998", 0)}, CLASSES) == ()
    bad = {str(number): node("PreviewImage") for number in range(999)}
    assert len(check_graph(bad, CLASSES)) == MAX_ERRORS


def refused(graph: Any, *, allowed: Any = SAFE_NODES, image: bool = False) -> list[tuple[str, str, str]]:
    found = problems(graph, Rules(frozenset(allowed), CLASSES, has_image=image))
    return [(error.node, error.type, error.field) for error in found]


def test_a_clients_own_graph_may_use_what_is_on_the_list() -> None:
    graph = {"1": blank(), "2": save("1", 0)}
    assert refused(graph) == []
    assert refused(graph, allowed=["EmptyImage"]) == [("2", "node_not_allowed", "")]
    assert refused({"1": node("RunPython", code="x")}) == [("1", "node_not_allowed", "")]
    assert refused({"1": node("RunPython", code="x")}, allowed=["*"]) == []


@pytest.mark.parametrize(
    "value", ["../../evil", "a/../b", "/etc/passwd", "C:\\x", "~/x", "..\\x", "file:///x"]
)
def test_no_path_leads_out_of_its_folder(value: str) -> None:
    graph = {"1": blank(), "2": save("1", 0, filename_prefix=value)}
    for allowed in (SAFE_NODES, ["*"]):
        assert refused(graph, allowed=allowed) == [("2", "value_not_allowed", "filename_prefix")]
    image = {"1": node("LoadImage", image=value), "2": save("1", 0)}
    assert refused(image, allowed=["*"]) == [("1", "value_not_allowed", "image")]


def test_files_of_the_instance_cannot_be_named_but_the_jobs_own_image_can() -> None:
    def loads(name: Any) -> dict[str, Any]:
        return {"1": node("LoadImage", image=name), "2": save("1", 0)}

    for name in ("others.png", {"__value__": "others.png"}, {"__value__": ["others.png", 0]}, ["others.png"]):
        assert refused(loads(name)) == [("1", "value_not_allowed", "image")]
    assert refused(loads({"__value__": "../x.png"}), allowed=["*"]) == [("1", "value_not_allowed", "image")]
    assert refused(loads(["2", 0])) == []
    assert refused(loads("others.png [output]"), allowed=["*"]) == [("1", "value_not_allowed", "image")]
    assert refused(loads("inputImage")) == [("1", "value_not_allowed", "image")]
    assert refused(loads("inputImage"), image=True) == []
    job = ComfyParams(workflow=loads("inputImage"), inputImage="key.png")
    built = build(job, None, classes=CLASSES, seed_from="job", files={"inputImage": "reverie/key.png"})
    assert built.graph["1"]["inputs"] == {"image": "reverie/key.png"}


@pytest.mark.parametrize(
    "graph",
    [
        {},
        {"1": 5},
        {"1": {"class_type": "SaveImage"}},
        {"1": {"inputs": {}}},
        {"": blank()},
        {"1" * 65: blank()},
        {str(number): blank() for number in range(1001)},
    ],
)
def test_what_is_no_graph_is_refused(graph: Any) -> None:
    assert refused(graph)


def test_only_what_comfyui_needs_of_a_node_is_sent() -> None:
    graph = {"1": {**blank(), "is_changed": "x", "_meta": {"title": "Blank", "more": [1]}}}
    built = build(ComfyParams(workflow=copy.deepcopy(graph)), None, classes=CLASSES, seed_from="job")
    assert built.graph == {"1": {**blank(), "_meta": {"title": "Blank"}}}


def test_a_verdict_is_fine_if_it_is_for_one_instance() -> None:
    workflow = read_folder(SHIPPED)["text_to_image"]
    job = ComfyParams(workflowId="text_to_image", params={"prompt": "x", "steps": 0})
    no_nodes = verdict(job, workflow, classes={}, allowed=())
    wrong = verdict(job, workflow, classes=CLASSES, allowed=())
    assert wrong.code == "invalid_field"
    fine = verdict(
        ComfyParams(workflowId="text_to_image", params={"prompt": "x"}), workflow, classes=CLASSES, allowed=()
    )
    assert fine.code == ""
    assert merged([no_nodes, fine]).code == ""
    assert merged([]).code == "comfy_unreachable"
    graph = verdict(ComfyParams(workflow={"1": node("PreviewImage")}), None, classes=CLASSES, allowed=["*"])
    assert graph.code == "workflow_invalid"
    assert graph.fields[0].loc == ("workflow", "1", "images")
    assert graph.node_errors[0].type == "required_input_missing"
