"""In which order the nodes of a graph run; it is not the graph's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Graph = dict[str, dict[str, Any]]


def links(node: dict[str, Any]) -> list[str]:
    """The ids of the nodes that a node takes values from, in input order."""
    inputs = node.get("inputs", {})
    return [value[0] for value in inputs.values() if is_link(value)]


def is_link(value: Any) -> bool:
    """Whether an input is [node id, output index]."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def reached(graph: Graph, outputs: Iterable[str], stop: Iterable[str] = ()) -> list[str]:
    """What these outputs need, last link first; what lies behind a node in `stop` is left out."""
    found: dict[str, None] = {}
    waiting = list(reversed(list(outputs)))
    while waiting:
        node_id = waiting.pop()
        if node_id in found or node_id not in graph:
            continue
        found[node_id] = None
        if node_id not in stop:
            waiting += links(graph[node_id])
    return list(found)


def distances(graph: Graph, outputs: Iterable[str]) -> dict[str, int]:
    """How many links each node is away from its nearest output."""
    far = dict.fromkeys(outputs, 0)
    waiting = list(far)
    for node_id in waiting:
        for source in links(graph.get(node_id, {})):
            if source not in far:
                far[source] = far[node_id] + 1
                waiting.append(source)
    return far


def chosen(ready: list[str], far: dict[str, int]) -> str:
    """Which of the ready nodes runs: nearer to an output than three links first, else the first found."""
    return min(ready, key=lambda node_id: min(far.get(node_id, 3), 3))


def recursive(graph: Graph, outputs: Iterable[str]) -> list[str]:
    """The order before August 2024: the output with the fewest nodes first, each after what it needs."""
    order: dict[str, None] = {}

    def visit(node_id: str) -> None:
        for source in links(graph[node_id]):
            if source not in order:
                visit(source)
        order[node_id] = None

    for output in sorted(outputs, key=lambda name: len(reached(graph, [name]))):
        visit(output)
    return list(order)
