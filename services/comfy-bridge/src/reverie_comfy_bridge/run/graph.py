"""A workflow in API format, as far as a run needs to know it: nodes, their classes, titles and links."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

import msgspec

from reverie_comfy_bridge.wire.values import as_id, as_mapping, as_text


class GraphNode(msgspec.Struct, frozen=True):
    """A node: its class, the title a person gave it, its literal inputs and the nodes that it takes from."""

    id: str
    class_type: str
    title: str
    inputs: Mapping[str, object]
    sources: tuple[str, ...] = ()


class Graph:
    """The nodes of a workflow by their ids."""

    def __init__(self, nodes: Mapping[str, GraphNode]) -> None:
        self.nodes = nodes

    @classmethod
    def read(cls, workflow: Mapping[str, object]) -> Graph:
        """From a workflow in API format; what makes no sense in it is left out."""
        return cls({id: _read_node(id, as_mapping(value), workflow) for id, value in workflow.items()})

    @cached_property
    def ends(self) -> frozenset[str]:
        """The nodes that no other takes from: as near to the output nodes as a graph alone tells."""
        taken = {source for node in self.nodes.values() for source in node.sources}
        return frozenset(self.nodes) - taken

    def needed_for(self, outputs: Collection[str], done: Collection[str] = ()) -> frozenset[str]:
        """These nodes and all that they take from, as far as it is not `done`."""
        found: set[str] = set()
        waiting = [node for node in outputs if node in self.nodes]
        while waiting:
            node = waiting.pop()
            if node in found or node in done:
                continue
            found.add(node)
            waiting.extend(self.nodes[node].sources)
        return frozenset(found)

    def fold(self, node: str) -> str:
        """The node of the graph that a node made by expansion belongs to (`1.0.0.2` to `1`); itself if unknown."""
        shorter = node
        while shorter and shorter not in self.nodes:
            shorter = shorter.rpartition(".")[0]
        return shorter or node

    def class_of(self, node: str) -> str:
        """A node's class; empty if it is not in the graph, as those made by expansion are not."""
        known = self.nodes.get(node)
        return known.class_type if known else ""

    def title_of(self, node: str) -> str:
        """What a person calls a node: its title, else its class, else its id."""
        known = self.nodes.get(node)
        return (known.title or known.class_type if known else "") or node


def _read_node(node: str, data: Mapping[str, object], workflow: Mapping[str, object]) -> GraphNode:
    inputs = as_mapping(data.get("inputs"))
    links = {name: source for name, value in inputs.items() if (source := _source(value, workflow))}
    return GraphNode(
        id=node,
        class_type=as_text(data.get("class_type")),
        title=as_text(as_mapping(data.get("_meta")).get("title")),
        inputs={name: value for name, value in inputs.items() if name not in links},
        sources=tuple(links.values()),
    )


def _source(value: object, workflow: Mapping[str, object]) -> str:
    """The node that a link `[node, slot]` comes from; empty if the value is none."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], int):
        return ""
    node = as_id(value[0])
    return node if node in workflow else ""
