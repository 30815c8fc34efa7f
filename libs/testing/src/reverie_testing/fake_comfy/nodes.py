"""What a node class of the fake is, and what its nodes can do while they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
    """One class of some version."""

    name: str
    run: Run
    #: Its `/object_info` entry.
    info: dict[str, Any]
    #: Runs beside other asynchronous nodes.
    asynchronous: bool = False
    #: False: runs each time, also with the same inputs.
    cacheable: bool = True

    @property
    def required(self) -> Inputs:
        """The inputs that must be given."""
        return dict(self.info["input"].get("required", {}))

    def inputs(self) -> Inputs:
        """Required and optional ones."""
        return {**self.required, **self.info["input"].get("optional", {})}

    @property
    def outputs(self) -> list[str]:
        """The types of its outputs."""
        return list(self.info["output"])

    @property
    def output_node(self) -> bool:
        """Whether a graph may end with it."""
        return bool(self.info["output_node"])


def choices(spec: Spec) -> list[Any] | None:
    """The values an input is limited to; newer classes tell them among the options of a COMBO."""
    if isinstance(spec[0], list):
        return spec[0]
    return spec[1].get("options") if spec[0] == "COMBO" and len(spec) > 1 else None
