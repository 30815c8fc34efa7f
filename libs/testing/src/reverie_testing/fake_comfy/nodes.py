"""The node classes that the fake knows: their `/object_info` and what they do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from reverie_testing.fake_comfy.pictures import Picture

#: One input as `/object_info` tells it: [type or list of choices, options].
Spec = list[Any]
Inputs = dict[str, Spec]


class NodeFailure(Exception):
    """What a node raises; `kind` is the Python type that a client is told."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WorkerExit(BaseException):
    """Leaves the executor and ends the worker thread."""


class Call(Protocol):
    """What a running node can do besides computing."""

    node_id: str
    previews: bool

    async def rest(self, milliseconds: float) -> None:
        """Work for that long; without an interruption."""

    async def progress(self, value: float, maximum: float, preview: tuple[str, bytes] | None = None) -> None:
        """Tell a step, with a preview (format, bytes); interrupted here if somebody asked."""

    async def text(self, text: str) -> None:
        """Tell a line of text."""

    def save(self, kind: str, prefix: str, picture: Picture) -> dict[str, str]:
        """Write one file."""

    def file(self, name: str) -> bytes:
        """An uploaded input; NodeFailure."""


@dataclass(frozen=True)
class Result:
    """A node's outcome."""

    values: tuple[Any, ...] = ()
    #: What the history shows of it.
    ui: dict[str, Any] | None = None
    #: Nodes to run in its place; its values may be links into them.
    expand: dict[str, Any] | None = None


Run = Callable[..., Awaitable[Result]]


@dataclass(frozen=True)
class NodeClass:
    """One class."""

    name: str
    run: Run
    required: Inputs = field(default_factory=dict)
    optional: Inputs = field(default_factory=dict)
    hidden: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    output_node: bool = False
    #: Runs beside other asynchronous nodes.
    asynchronous: bool = False
    #: False: runs each time, also with the same inputs.
    cacheable: bool = True
    category: str = "image"

    def inputs(self) -> Inputs:
        """Required and optional ones."""
        return {**self.required, **self.optional}

    def info(self, numbered: bool) -> dict[str, Any]:
        """Its `/object_info` entry."""
        groups = {"required": self.required, "optional": self.optional, "hidden": self.hidden}
        shown = {name: group for name, group in groups.items() if group or name == "required"}
        entry: dict[str, Any] = {"input": shown}
        if numbered:
            entry["input_order"] = {name: list(group) for name, group in shown.items()}
        entry |= {
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.outputs),
            "name": self.name,
            "display_name": self.name,
            "description": "",
        }
        if numbered:
            entry["python_module"] = "nodes"
        return entry | {"category": self.category, "output_node": self.output_node}
