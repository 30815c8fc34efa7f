"""Making ComfyUI do again what it has cached."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from reverie_comfy_bridge.wire.values import as_mapping

#: The input that is added; no node declares one of this name.
TOKEN_INPUT: Final = "reverie_again"


def with_changed_inputs(
    workflow: Mapping[str, object], nodes: Collection[str], token: str
) -> dict[str, object]:
    """The workflow with an input more on `nodes`, so that they (and what follows from them) are no longer cached.

    ComfyUI compares all inputs that stand in the graph, but hands a node only those that it declares: the outputs
    are the same, made anew.
    """
    return {id: _changed(as_mapping(node), token) if id in nodes else node for id, node in workflow.items()}


def _changed(node: Mapping[str, object], token: str) -> dict[str, object]:
    return {**node, "inputs": {**as_mapping(node.get("inputs")), TOKEN_INPUT: token}}
