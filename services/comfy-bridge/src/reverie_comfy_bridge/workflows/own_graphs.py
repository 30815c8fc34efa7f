"""Graphs that a client sends himself: what may be in them, before they are checked as any other.

A node can read files, fetch addresses and run code, so only classes on the operator's list are taken, and no path
or file name of the instance: a picture comes by `inputImage` alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from reverie_comfy_bridge.workflows.manifest import MAX_NODES, Graph
from reverie_comfy_bridge.workflows.node_classes import NodeClasses
from reverie_protocol.field_errors import excerpt
from reverie_protocol.jobs import ComfyNodeError

#: What stands for the job's `inputImage` in a graph: `image` of a node LoadImage, say.
INPUT_IMAGE: Final = "inputImage"
#: In the list of classes: all of them.
EVERYTHING: Final = "*"
MAX_ERRORS: Final = 100


#: Inputs that name files, by what they are called.
_FILE_INPUT: Final = re.compile(
    r"(file|path|folder|dir|image|video|audio|mask|prefix|name)", re.ASCII | re.IGNORECASE
)
_ABSOLUTE: Final = re.compile(r"[/\\~]|[A-Za-z]:[/\\]|[a-z][a-z0-9+.-]*://", re.ASCII)
#: What ComfyUI reads behind a file's name as the folder to look in.
_ANNOTATED: Final = re.compile(r"\[(input|output|temp)\]\s*$", re.ASCII)


class Rules(msgspec.Struct, frozen=True):
    """What holds for a graph: the classes that are allowed, those the instance has, whether an image comes."""

    allowed: Collection[str]
    classes: NodeClasses
    has_image: bool


def problems(graph: Mapping[str, object], rules: Rules) -> tuple[ComfyNodeError, ...]:
    """What keeps a client's graph from being taken at all, by node; at most `MAX_ERRORS`."""
    if not graph:
        return (ComfyNodeError("", "prompt_no_outputs", "the graph has no nodes"),)
    if len(graph) > MAX_NODES:
        return (ComfyNodeError("", "invalid_prompt", f"a graph has at most {MAX_NODES} nodes"),)
    found: list[ComfyNodeError] = []
    for node_id, node in graph.items():
        found += _problems_of(node_id, node, rules)
        if len(found) >= MAX_ERRORS:
            break
    return tuple(found[:MAX_ERRORS])


def sanitised(graph: Mapping[str, Any], *, image: str | None) -> Graph:
    """The graph with what ComfyUI needs of each node and nothing else; `image` is the file of `inputImage`."""
    return {
        node_id: {
            "class_type": node["class_type"],
            "inputs": {
                name: image if value == INPUT_IMAGE and image is not None else value
                for name, value in node["inputs"].items()
            },
            **({"_meta": {"title": title}} if (title := _title(node)) else {}),
        }
        for node_id, node in graph.items()
    }


def _problems_of(node_id: str, node: object, rules: Rules) -> Iterator[ComfyNodeError]:
    shown = excerpt(node_id)
    if not 1 <= len(node_id) <= 64:
        yield ComfyNodeError(shown, "invalid_prompt", "a node's id has 1 to 64 characters")
        return
    if not isinstance(node, dict):
        yield ComfyNodeError(shown, "invalid_prompt", "a node is an object with class_type and inputs")
        return
    class_type, inputs = node.get("class_type"), node.get("inputs")
    title = _title(node)
    if not isinstance(class_type, str) or not isinstance(inputs, dict):
        yield ComfyNodeError(shown, "missing_node_type", "the node has no class_type and inputs", title=title)
        return
    name = excerpt(class_type)
    if not {EVERYTHING, class_type} & set(rules.allowed):
        yield ComfyNodeError(shown, "node_not_allowed", f"{name} is not on the list of nodes", name, title)
        return
    for field, value in inputs.items():
        problem = _problem_of(class_type, field, value, rules)
        if problem:
            yield ComfyNodeError(shown, "value_not_allowed", problem, name, title, excerpt(field))


def _problem_of(class_type: str, field: str, value: object, rules: Rules) -> str:
    """Why an input may not be given this; empty if it may."""
    spec = rules.classes[class_type].input(field) if class_type in rules.classes else None
    texts = tuple(_texts(value))
    upload = spec.upload if spec else class_type.startswith("LoadImage") and field == "image"
    if upload:
        if value == INPUT_IMAGE:
            return "" if rules.has_image else "the job has no inputImage"
        if EVERYTHING not in rules.allowed:
            return f"must be {INPUT_IMAGE}: files of the instance cannot be named" if texts else ""
    if (upload or _FILE_INPUT.search(field)) and any(map(_leads_away, texts)):
        return "must not lead out of its folder"
    return ""


def _texts(value: object) -> Iterator[str]:
    """Every text in a value but a link's: ComfyUI unwraps `{"__value__": …}`, and nodes take lists and objects."""
    match value:
        case [str(), int()]:
            return
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case list() as values:
                waiting += values
            case dict() as fields:
                waiting += fields.values()


def _leads_away(value: str) -> bool:
    parts = re.split(r"[/\\]", value)
    return ".." in parts or bool(_ABSOLUTE.match(value)) or bool(_ANNOTATED.search(value))


def _title(node: Mapping[str, Any]) -> str:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return excerpt(title) if isinstance(title, str) else ""
