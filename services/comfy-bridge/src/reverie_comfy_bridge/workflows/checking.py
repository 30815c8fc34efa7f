"""Would an instance take a graph?  What ComfyUI itself objects to, said before a job is taken; pure.

The types are ComfyUI's own: missing_node_type, prompt_no_outputs, required_input_missing, bad_linked_input,
return_type_mismatch, invalid_input_type, value_smaller_than_min, value_bigger_than_max, value_not_in_list,
dependency_cycle.  What cannot be judged from `/object_info` passes: ComfyUI has the last word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from reverie_comfy_bridge.workflows.manifest import Graph
from reverie_comfy_bridge.workflows.node_classes import InputSpec, NodeClasses
from reverie_protocol.field_errors import excerpt
from reverie_protocol.jobs import ComfyNodeError

MAX_ERRORS: Final = 100
#: Choices that an error lists.
MAX_LISTED: Final = 20
_LINK_LENGTH: Final = 2


class Finding(msgspec.Struct, frozen=True):
    """One objection; `node` is empty where it is to the whole graph."""

    node: str
    type: str
    message: str
    field: str = ""
    details: str = ""


def check_graph(graph: Graph, classes: NodeClasses) -> tuple[ComfyNodeError, ...]:
    """What an instance with these classes would refuse, at most `MAX_ERRORS`; empty if it would run.

    The graph's shape has been checked: nodes with a class_type and inputs.
    """
    findings: list[Finding] = []
    for finding in _findings(graph, classes):
        findings.append(finding)
        if len(findings) >= MAX_ERRORS:
            break
    return tuple(_error(graph, finding) for finding in findings)


def _findings(graph: Graph, classes: NodeClasses) -> Iterator[Finding]:
    unknown = [node for node, content in graph.items() if content["class_type"] not in classes]
    for node in unknown:
        name = excerpt(graph[node]["class_type"])
        yield Finding(node, "missing_node_type", f"{name} is not installed there")
    if unknown:
        return
    outputs = [node for node, content in graph.items() if classes[content["class_type"]].output_node]
    if not outputs:
        yield Finding("", "prompt_no_outputs", "the graph has no output node")
        return
    reached = _reached(graph, outputs)
    for node in reached:
        yield from _check_node(graph, node, classes)
    yield from _cycles(graph, reached)


def links_of(node: dict[str, Any]) -> list[tuple[str, Any]]:
    """Inputs of a node that are links, as ComfyUI sees it: every list is one."""
    return [(name, value) for name, value in node["inputs"].items() if isinstance(value, list)]


def _is_link(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == _LINK_LENGTH
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def _reached(graph: Graph, outputs: Sequence[str]) -> list[str]:
    """The nodes that the outputs need, themselves included, in the graph's order: no other is looked at."""
    seen: set[str] = set()
    to_see = list(outputs)
    while to_see:
        node = to_see.pop()
        if node in seen or node not in graph:
            continue
        seen.add(node)
        to_see += [value[0] for _, value in links_of(graph[node]) if _is_link(value)]
    return [node for node in graph if node in seen]


def _check_node(graph: Graph, node: str, classes: NodeClasses) -> Iterator[Finding]:
    node_class = classes[graph[node]["class_type"]]
    inputs = graph[node]["inputs"]
    for name, spec in node_class.required.items():
        if name in inputs or _is_dynamic(spec):
            continue
        yield Finding(node, "required_input_missing", f"{name} is required", name)
    for name, value in inputs.items():
        known = node_class.input(name)
        if known is None:
            continue
        if isinstance(value, list):
            yield from _check_link(graph, node, name, known, classes)
        else:
            yield from _check_value(node, name, value, known)


def _is_dynamic(spec: InputSpec) -> bool:
    """Inputs that stand for several, whose names only ComfyUI knows."""
    return spec.type.startswith("COMFY_")


def _check_link(
    graph: Graph, node: str, name: str, spec: InputSpec, classes: NodeClasses
) -> Iterator[Finding]:
    value = graph[node]["inputs"][name]
    if not _is_link(value):
        yield Finding(node, "bad_linked_input", "a link is [node, number of its output]", name)
        return
    source, slot = value
    if source not in graph:
        yield Finding(node, "bad_linked_input", f"there is no node {excerpt(source)}", name)
        return
    given = classes[graph[source]["class_type"]].outputs
    if not 0 <= slot < len(given):
        message = f"node {excerpt(source)} has {len(given)} outputs, numbered from 0"
        yield Finding(node, "bad_linked_input", message, name)
    elif not _goes_into(given[slot], spec):
        details = f"{name}, received_type({given[slot]}) mismatch input_type({spec.type})"
        message = f"{name} takes {spec.type}, not {given[slot]}"
        yield Finding(node, "return_type_mismatch", message, name, details)


def _goes_into(given: str, spec: InputSpec) -> bool:
    if given == spec.type or {"*", "COMBO"} & {given, spec.type} or _is_dynamic(spec):
        return True
    if given.startswith("COMFY_"):
        return True
    return bool(_types(given) & _types(spec.type)) or "*" in _types(spec.type)


def _types(text: str) -> set[str]:
    return {part.strip() for part in text.split(",")}


def _check_value(node: str, name: str, value: Any, spec: InputSpec) -> Iterator[Finding]:
    if isinstance(value, dict) and "__value__" in value:  # how a list is said not to be a link
        value = value["__value__"]
    if spec.type in ("INT", "FLOAT"):
        yield from _check_number(node, name, value, spec)
    elif spec.choices is not None and not spec.upload and not spec.many and value not in spec.choices:
        listed = ", ".join(repr(choice) for choice in spec.choices[:MAX_LISTED])
        more = f" and {len(spec.choices) - MAX_LISTED} more" if len(spec.choices) > MAX_LISTED else ""
        message = f"must be one of {listed}{more}" if spec.choices else "there is nothing to choose from"
        yield Finding(node, "value_not_in_list", message, name, f"{name}: {excerpt(repr(value))}")


def _check_number(node: str, name: str, value: Any, spec: InputSpec) -> Iterator[Finding]:
    """ComfyUI takes texts that are numbers, too."""
    try:
        number = int(value) if spec.type == "INT" else float(value)
    except (TypeError, ValueError, OverflowError):
        kind = "an integer" if spec.type == "INT" else "a number"
        yield Finding(node, "invalid_input_type", f"must be {kind}", name, f"{name}, {excerpt(repr(value))}")
        return
    if spec.minimum is not None and number < spec.minimum:
        yield Finding(node, "value_smaller_than_min", f"{number} is smaller than {spec.minimum}", name)
    if spec.maximum is not None and number > spec.maximum:
        yield Finding(node, "value_bigger_than_max", f"{number} is bigger than {spec.maximum}", name)


def _cycles(graph: Graph, nodes: Sequence[str]) -> Iterator[Finding]:
    """Nodes that depend on themselves."""
    needs = {
        node: {value[0] for _, value in links_of(graph[node]) if _is_link(value) and value[0] in graph}
        for node in nodes
    }
    # Take away what needs nothing that is left, then what nothing needs that is left: circles stay.
    left = _peeled(_peeled(needs, needs), needs, backwards=True)
    for node in nodes:
        if node in left:
            yield Finding(node, "dependency_cycle", "the node depends on itself")


def _peeled(left: Collection[str], needs: Mapping[str, set[str]], *, backwards: bool = False) -> set[str]:
    """The nodes that remain when those without an edge to another remaining one are taken away, again and again."""
    remaining = set(left)
    edges = _reversed(needs) if backwards else needs
    waiting = _reversed(edges)
    count = {node: len(edges[node] & remaining) for node in remaining}
    free = [node for node, number in count.items() if number == 0]
    while free:
        gone = free.pop()
        remaining.discard(gone)
        for node in waiting[gone] & remaining:
            count[node] -= 1
            if count[node] == 0:
                free.append(node)
    return remaining


def _reversed(needs: Mapping[str, set[str]]) -> dict[str, set[str]]:
    turned: dict[str, set[str]] = {node: set() for node in needs}
    for node, other in needs.items():
        for each in other:
            turned[each].add(node)
    return turned


def _error(graph: Graph, finding: Finding) -> ComfyNodeError:
    node = graph.get(finding.node, {})
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else ""
    return ComfyNodeError(
        node=excerpt(finding.node),
        type=finding.type,
        message=finding.message,
        class_type=excerpt(str(node.get("class_type", ""))),
        title=excerpt(title) if isinstance(title, str) else "",
        field=excerpt(finding.field),
        details=finding.details,
    )
