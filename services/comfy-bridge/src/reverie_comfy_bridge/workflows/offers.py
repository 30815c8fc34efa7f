"""Which workflows an instance can run, and what is wrong with a job before it is taken; pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from reverie_comfy_bridge.workflows.building import build
from reverie_comfy_bridge.workflows.catalogue import Catalogue
from reverie_comfy_bridge.workflows.checking import check_graph
from reverie_comfy_bridge.workflows.manifest import Graph, Workflow
from reverie_comfy_bridge.workflows.node_classes import NodeClasses, choices_of
from reverie_comfy_bridge.workflows.own_graphs import Rules, problems
from reverie_protocol.comfy import ComfyVerdict
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import ComfyNodeError, ComfyParams

FINE: Final = ComfyVerdict()
#: Names that a refusal lists.
MAX_LISTED: Final = 50


def require_workflow(params: ComfyParams, catalogue: Catalogue) -> Workflow | None:
    """The workflow that a job names, None for a client's own graph; `workflow_not_found`."""
    if params.workflowId is None:
        return None
    workflow = catalogue.get(params.workflowId)
    if workflow is None:
        there = ", ".join(list(catalogue)[:MAX_LISTED]) or "none"
        raise ReverieError(
            ErrorCode.WORKFLOW_NOT_FOUND, f"there is no workflow {params.workflowId[:64]!r}; there is {there}"
        )
    return workflow


def verdict(
    params: ComfyParams, workflow: Workflow | None, *, classes: NodeClasses, allowed: Collection[str]
) -> ComfyVerdict:
    """Whether an instance with these classes can run a job; `allowed` are the classes of clients' own graphs."""
    if workflow is None:
        rules = Rules(allowed, classes, has_image=params.inputImage is not None)
        refused = problems(params.workflow or {}, rules)
        if refused:
            return invalid(refused)
    try:
        built = build(params, workflow, classes=classes, seed_from="")
    except ReverieError as error:
        return ComfyVerdict(code=error.code, message=error.message, fields=error.fields)
    wrong = check_graph(built.graph, classes)
    return invalid(wrong) if wrong else FINE


def invalid(errors: tuple[ComfyNodeError, ...]) -> ComfyVerdict:
    """The refusal of a graph, each node's field also as a wrong field of the request."""
    first = errors[0]
    where = ".".join(filter(None, (first.node, first.field)))
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return ComfyVerdict(
        code=ErrorCode.WORKFLOW_INVALID,
        message=f"{f'node {where}: ' if where else ''}{first.message}{more}",
        fields=tuple(
            FieldError(("workflow", *filter(None, (error.node, error.field))), error.message, error.type)
            for error in errors
        ),
        node_errors=errors,
    )


def obstacle(workflow: Workflow, classes: NodeClasses, tags: Collection[str] = ()) -> str:
    """Why an instance can never run a workflow, whatever its parameters, as one sentence; empty if it can."""
    lacking = sorted(workflow.tags.difference(tags))
    if lacking:
        return f"it has no tag {lacking[0]}"
    for name, parameter in workflow.parameters.items():
        if parameter.choices_from and not choices_of(classes, parameter.choices_from):
            return f"there is nothing to choose for {name} ({parameter.choices_from})"
    graphs = [workflow.graph]
    if workflow.graph_without_image is not None and not any(
        workflow.parameters[name].required for name in workflow.images
    ):
        graphs.append(workflow.graph_without_image)
    for graph in graphs:
        lasting = [error for error in check_graph(graph, classes) if not _is_asked(error, workflow, graph)]
        if lasting:
            error = lasting[0]
            where = f"node {error.node} ({error.class_type})" if error.node else "the graph"
            return f"{where}: {error.field + ': ' if error.field else ''}{error.message}"
    return ""


def _is_asked(error: ComfyNodeError, workflow: Workflow, graph: Graph) -> bool:
    """Whether a parameter takes the place of what is wrong in the template."""
    if not error.field or isinstance(graph[error.node]["inputs"].get(error.field), list):
        return False
    place = (error.node, error.field)
    return any(place in parameter.places for parameter in workflow.parameters.values())


def merged(verdicts: Collection[ComfyVerdict]) -> ComfyVerdict:
    """One verdict for several instances: fine if it is for one, else what speaks most precisely."""
    ranked = sorted(verdicts, key=lambda each: (bool(each.code), len(each.node_errors), len(each.fields)))
    best = next(iter(ranked), None)
    if best is None:
        message = "no ComfyUI instance can be reached now"
        return ComfyVerdict(code=ErrorCode.COMFY_UNREACHABLE, message=message)
    return best
