"""A workflow in API format, as far as a run needs to know it: nodes, their classes, titles and links."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec


class GraphNode(msgspec.Struct, frozen=True):
    """A node: its class, the title a person gave it, its literal inputs and the nodes that it takes from."""

    id: str
    class_type: str
    title: str
    inputs: Mapping[str, object]
    sources: tuple[str, ...] = ()


class Graph(msgspec.Struct, frozen=True):
    """The nodes by their ids."""

    nodes: Mapping[str, GraphNode]

    @classmethod
    def read(cls, workflow: Mapping[str, object]) -> Graph:
        """From a workflow in API format; what makes no sense in it is left out."""
        raise NotImplementedError

    def needed_for(self, outputs: Collection[str]) -> frozenset[str]:
        """These nodes and all that they take from."""
        raise NotImplementedError

    def fold(self, node: str) -> str:
        """The node of the graph that a node made by expansion belongs to (`1.0.0.2` to `1`); itself if unknown."""
        raise NotImplementedError
