"""From a job's parameters to the graph that ComfyUI gets; pure.

How the work uses it: `image_keys` says which pictures to bring, `build` takes the names they have there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import msgspec

from reverie_comfy_bridge.workflows.manifest import Graph, Parameter, Value, Workflow
from reverie_comfy_bridge.workflows.node_classes import NodeClasses
from reverie_comfy_bridge.workflows.own_graphs import sanitised
from reverie_comfy_bridge.workflows.parameters import image_keys, read_values
from reverie_protocol.jobs import ComfyParams


class Built(msgspec.Struct, frozen=True):
    """A graph in API format, ready for an instance.

    `values` are the parameters it was made with, defaults and seeds filled in; `seed` is the first seed, None where
    there is none.  `outputs` are the nodes whose outputs are kept, empty for all.
    """

    graph: Graph
    values: dict[str, Value] = {}
    seed: int | None = None
    outputs: frozenset[str] = frozenset()


def build(
    params: ComfyParams,
    workflow: Workflow | None,
    *,
    classes: NodeClasses,
    seed_from: str,
    files: Mapping[str, str] | None = None,
) -> Built:
    """The graph of a job on an instance that has `classes`; ReverieError `invalid_field`.

    Without a `workflow` it is the client's own graph (`own_graphs.problems` comes first).  `seed_from` is the job's
    id.  `files` are the pictures' names in the instance's input folder, by the names that `image_keys` gives; left
    out, as before a job is taken, their storage keys stand for them.
    """
    keys = image_keys(params, workflow)
    names = keys if files is None else files
    if workflow is None:
        return Built(sanitised(params.workflow or {}, image=names.get("inputImage")))
    values = read_values(params, workflow, classes=classes, seed_from=seed_from)
    base = workflow.graph
    if workflow.images and not keys and workflow.graph_without_image is not None:
        base = workflow.graph_without_image
    graph = copy.deepcopy(base)
    for name, value in {**values, **{name: names[name] for name in keys}}.items():
        put_value(graph, workflow.parameters[name], value)
    seeds = [value for name, value in values.items() if workflow.parameters[name].type == "seed"]
    seed = int(seeds[0]) if seeds else None
    return Built(graph, values, seed, workflow.outputs)


def put_value(graph: Graph, parameter: Parameter, value: Value) -> None:
    """Write a value into each of its places that this graph has."""
    for node, field in parameter.places:
        if node in graph and field in graph[node]["inputs"]:
            graph[node]["inputs"][field] = value
