"""What nodes gave, kept from one prompt to the next by what went into them."""

from __future__ import annotations

import hashlib
import json

from reverie_testing.fake_comfy.files import Files, annotated
from reverie_testing.fake_comfy.nodes import Result
from reverie_testing.fake_comfy.order import Graph, is_link

#: How many results the versions keep that keep them while there is memory.
PLENTY = 200


class Cache(dict[str, Result]):
    """Results by signature."""

    def keep(self, names: set[str], *, plenty: bool) -> None:
        """Forget what the last prompt did not contain; if there is plenty of memory, only the oldest of that."""
        others = [name for name in self if name not in names]
        for name in others[: max(len(others) - PLENTY, 0)] if plenty else others:
            del self[name]


def signatures(graph: Graph, files: Files) -> dict[str, str]:
    """A name for what each node gives: its class and all inputs, those behind its links included."""
    found: dict[str, str] = {}

    def sign(node_id: str, above: frozenset[str]) -> str:
        if node_id not in found:
            if node_id not in graph or node_id in above:
                return "nothing"
            node = graph[node_id]
            inputs = {
                name: [sign(value[0], above | {node_id}), value[1]] if is_link(value) else value
                for name, value in sorted(node.get("inputs", {}).items())
            }
            parts = [node["class_type"], inputs]
            if node["class_type"] == "LoadImage":
                parts.append(
                    hashlib.blake2s(files.kept.get(annotated(str(inputs["image"])), b"")).hexdigest()
                )
            found[node_id] = hashlib.blake2s(json.dumps(parts).encode()).hexdigest()
        return found[node_id]

    for node_id in graph:
        sign(node_id, frozenset())
    return found
