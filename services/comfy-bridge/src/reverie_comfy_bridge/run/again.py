"""Making ComfyUI do again what it has cached."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def with_changed_inputs(
    workflow: Mapping[str, object], nodes: Collection[str], token: str
) -> dict[str, object]:
    """The workflow with an input more on `nodes`, so that they (and what follows from them) are no longer cached.

    ComfyUI compares all inputs that stand in the graph but hands a node only those it declares: the outputs are the
    same, and made anew.
    """
    raise NotImplementedError
