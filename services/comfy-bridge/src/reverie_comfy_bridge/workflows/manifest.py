"""A named workflow: a graph in ComfyUI's API format, `<id>.json`, and beside it `<id>.toml`, which says what may be
asked of it and where that goes.

    title = "Text to image"
    description = "A picture from a prompt."
    outputs = ["9"]                       # nodes whose outputs are kept; left out: all
    kinds = ["images"]                    # what they are, for who chooses a workflow
    tags = ["large"]                      # only instances with all of these run it
    without_image = "text_to_image.json"  # the graph where no optional image is given

    [parameters.prompt]
    type = "string"                       # or integer, float, boolean, choice, seed, image
    title = "Prompt"
    max_length = 10000
    into = ["6.text"]                     # <node>.<input>, several are allowed

    [parameters.steps]
    type = "integer"
    minimum = 1
    maximum = 150
    default = 20                          # without a default a parameter has to be given
    into = ["3.steps"]

    [parameters.checkpoint]
    type = "choice"
    choices_from = "CheckpointLoaderSimple.ckpt_name"  # what the instance has; its first is the default
    into = ["4.ckpt_name"]

    [parameters.image]
    type = "image"
    required = true
    into = ["10.image"]

Read as a whole: a file that is wrong anywhere says where.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from reverie_protocol.instances import InstanceTag

#: Largest graph and largest manifest that is read, in bytes.
MAX_BYTES: Final = 1 << 20
#: Nodes of one graph, of a template or of a client.
MAX_NODES: Final = 1000
#: Largest seed that is drawn, so that any client's numbers can hold it.
MAX_DRAWN_SEED: Final = 2**32 - 1

ID_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
Graph = dict[str, dict[str, Any]]
Value = str | int | float | bool
ParameterName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
_PLACE = re.compile(r"[^.\s]{1,64}\.\S{1,100}")


class ManifestError(Exception):
    """A workflow cannot be used; one sentence that names the file, the entry and what is allowed there."""


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that may be asked; `into` are its places in the graph, each a node's id and an input.

    Without a `default` it is required, but for an image (`required`), a seed (drawn) and `choices_from` (the
    instance's first).  `minimum` and `maximum` are of numbers, `max_length` of strings.
    """

    type: Literal["string", "integer", "float", "boolean", "choice", "seed", "image"]
    into: Annotated[tuple[str, ...], Meta(min_length=1, max_length=32)]
    title: str = ""
    description: str = ""
    default: Value | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    multiple: Annotated[int, Meta(ge=1)] | None = None
    max_length: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    choices: tuple[str, ...] = ()
    choices_from: str = ""
    required: bool = False

    @property
    def must_be_given(self) -> bool:
        """Whether there is no job without it."""
        if self.type == "image":
            return self.required
        return self.default is None and self.type != "seed" and not self.choices_from

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """Node and input of each place."""
        return tuple(place_of(each) for each in self.into)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    description: Annotated[str, Meta(max_length=2000)] = ""
    outputs: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[InstanceTag, ...] = ()
    without_image: str = ""
    parameters: dict[ParameterName, Parameter] = {}


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that can be built.

    `outputs` are the nodes whose outputs are kept, empty for all; `kinds` say what these are.  `tags` are what an
    instance must have.  `graph_without_image` is used where no optional
    image is given; None where the one graph does for both.
    """

    id: str
    title: str
    description: str
    parameters: dict[str, Parameter]
    outputs: frozenset[str]
    graph: Graph
    kinds: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    graph_without_image: Graph | None = None

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the parameters that are images; `inputImage` of a job is the first one."""
        return tuple(name for name, parameter in self.parameters.items() if parameter.type == "image")


def place_of(text: str) -> tuple[str, str]:
    """Node id and input of `<node>.<input>`; the input's name may hold dots."""
    node, _, field = text.partition(".")
    return node, field


def read_workflow(path: Path) -> Workflow:
    """The workflow whose manifest is at `path` (`<id>.toml`); ManifestError."""
    workflow_id = path.stem
    if re.fullmatch(ID_PATTERN, workflow_id) is None:
        raise ManifestError(f"{path.name}: the name of a workflow is 1 to 64 of a-z, 0-9, _ and -")
    try:
        read = msgspec.convert(tomllib.loads(_content(path).decode()), _File, strict=True)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{path.name} is not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ManifestError(f"{path.name}: {error}") from error
    graph = read_graph(path.with_suffix(".json"))
    without = read_graph(_beside(path, read.without_image)) if read.without_image else None
    graphs = [graph] if without is None else [graph, without]
    for name, parameter in read.parameters.items():
        problem = _problem(parameter, graphs)
        if problem:
            raise ManifestError(f"{path.name}: parameters.{name}{problem}")
    absent = [node for node in read.outputs if not any(node in each for each in graphs)]
    if absent:
        raise ManifestError(f"{path.name}: outputs: the graph has no node {absent[0]}")
    return Workflow(
        id=workflow_id,
        title=read.title,
        description=read.description,
        parameters=read.parameters,
        outputs=frozenset(read.outputs),
        graph=graph,
        kinds=read.kinds,
        tags=frozenset(read.tags),
        graph_without_image=without,
    )


def read_graph(path: Path) -> Graph:
    """A graph in API format; ManifestError where it is none (that of the editor's own format, say)."""
    try:
        graph = json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(graph, dict) or not graph or len(graph) > MAX_NODES:
        raise ManifestError(f"{path.name} must be an object of 1 to {MAX_NODES} nodes")
    for node_id, node in graph.items():
        if not (
            isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs"), dict)
        ):
            raise ManifestError(
                f"{path.name}: node {node_id} has no class_type and inputs; save the workflow in API format"
            )
    return graph


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path.name} is larger than {MAX_BYTES} bytes")
    return content


def _beside(path: Path, name: str) -> Path:
    if Path(name).name != name:
        raise ManifestError(f"{path.name}: without_image must be a file in the same folder")
    return path.with_name(name)


def _problem(parameter: Parameter, graphs: list[Graph]) -> str:
    """What is wrong with a parameter, behind its name; empty if nothing is."""
    for each in parameter.into:
        if _PLACE.fullmatch(each) is None:
            return f".into: {each!r} is not <node>.<input>"
        node, field = place_of(each)
        if not any(field in graph.get(node, {}).get("inputs", {}) for graph in graphs):
            return f".into: the graph has no input {each!r}"
    if parameter.type == "choice":
        if bool(parameter.choices) == bool(parameter.choices_from):
            return ": one of choices and choices_from is needed"
        if parameter.choices_from and _PLACE.fullmatch(parameter.choices_from) is None:
            return ".choices_from: must be <node class>.<input>"
        if parameter.choices and parameter.default is not None and parameter.default not in parameter.choices:
            return ".default: is none of the choices"
    return _problem_of_default(parameter)


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "choice": (str,),
    "integer": (int,),
    "seed": (int,),
    "float": (int, float),
    "boolean": (bool,),
    "image": (),
}


def _problem_of_default(parameter: Parameter) -> str:
    default = parameter.default
    if default is None:
        return ""
    fits = isinstance(default, _TYPES[parameter.type]) and (
        parameter.type == "boolean" or not isinstance(default, bool)
    )
    if not fits:
        return f".default: {default!r} is no {parameter.type}"
    if isinstance(default, int | float) and not isinstance(default, bool):
        low, high = parameter.minimum, parameter.maximum
        if (low is not None and default < low) or (high is not None and default > high):
            return ".default: lies outside minimum and maximum"
        if parameter.multiple and default % parameter.multiple:
            return f".default: is no multiple of {parameter.multiple}"
    return ""
