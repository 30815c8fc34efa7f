"""Reading a job submission: one shape on the WebSocket and in `POST /v1/jobs`.

Parameters stand flat beside `jobType` or under `params`; given in both places they must agree.  A ComfyUI job has a
parameter that is itself called `params`: beside `workflowId` it means the workflow's own parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

from msgspec import inspect

from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.field_errors import FieldErrorType, Loc
from reverie_protocol.init_image import conflicts
from reverie_protocol.jobs import (
    ComfyParams,
    GenerateParams,
    JobType,
    SubmittedParams,
    SuperResolutionParams,
)
from reverie_protocol.validation import Source, Walk, names_of, struct_fields

PARAMETERS: Final[dict[JobType, type[SubmittedParams]]] = {
    JobType.GENERATE: GenerateParams,
    JobType.SR: SuperResolutionParams,
    JobType.COMFY: ComfyParams,
}
_ENVELOPE = tuple(field for name, field in struct_fields(JobSubmit).items() if name != "params")
_ENVELOPE_NAMES = {"type", "jobType", "params"} | {field.encode_name for field in _ENVELOPE}
#: What clients may submit; the platform gives itself other jobs too.
_JOB_TYPE = inspect.type_info(Literal["generate", "sr", "comfy"])


def read_submission(data: Mapping[str, object], loc: Loc) -> JobSubmit:
    """The submission in a decoded object; ReverieError `invalid_field` with every wrong field."""
    walk = Walk(forbid_unknown=True)
    envelope = walk.fields(_ENVELOPE, [(loc, data)])
    if data.get("type", "job:submit") != "job:submit":
        walk.errors.add((*loc, "type"), FieldErrorType.CHOICE, "must be job:submit")
    params = _read_parameters(walk, data, loc)
    walk.errors.raise_if_any()
    return JobSubmit(params=cast(SubmittedParams, params), **envelope)  # type: ignore[arg-type]  # by field


def _read_parameters(walk: Walk, data: Mapping[str, object], loc: Loc) -> SubmittedParams | None:
    if "jobType" not in data:
        walk.errors.add((*loc, "jobType"), FieldErrorType.MISSING, "is required")
        return None
    job_type = walk.value(_JOB_TYPE, data["jobType"], (*loc, "jobType"))
    if not isinstance(job_type, str):
        return None
    parameters = PARAMETERS[JobType(job_type)]
    fields = struct_fields(parameters)
    names = {name for field in fields.values() for name in names_of(field)}
    sources: list[Source] = [(loc, data)]
    walk.refuse_unknown(_ENVELOPE_NAMES | names, sources[0])
    nested = _nested(walk, data, fields, loc)
    if nested is not None:
        walk.refuse_unknown(names, nested)
        sources = [(loc, {k: v for k, v in data.items() if k != "params"}), nested]
    arguments = walk.fields(fields.values(), sources)
    if walk.errors.found:
        return None
    params = parameters(**arguments)  # type: ignore[arg-type]  # by field
    if isinstance(params, GenerateParams):
        _note_conflicts(walk, params, sources)
    if isinstance(params, ComfyParams):
        _note_workflow(walk, params, sources[-1])
    return params


def _note_conflicts(walk: Walk, params: GenerateParams, sources: list[Source]) -> None:
    """Note the fields that do not go together, each where it stands."""
    for name, message in conflicts(params).items():
        names = names_of(struct_fields(GenerateParams)[name])
        places = [(*loc, given) for loc, data in sources for given in names if given in data]
        walk.errors.add(places[0], FieldErrorType.CONFLICT, message)


def _note_workflow(walk: Walk, params: ComfyParams, source: Source) -> None:
    """A ComfyUI job is either a named workflow or a graph."""
    loc, _ = source
    if params.workflowId is None and params.workflow is None:
        walk.errors.add((*loc, "workflowId"), FieldErrorType.MISSING, "is required (or `workflow`, a graph)")
    if params.workflowId is not None and params.workflow is not None:
        walk.errors.add((*loc, "workflow"), FieldErrorType.CONFLICT, "does not go with workflowId")


def _nested(
    walk: Walk, data: Mapping[str, object], fields: Mapping[str, inspect.Field], loc: Loc
) -> Source | None:
    """The object under `params` where it holds the job's parameters."""
    params, inside = data.get("params"), (*loc, "params")
    if "params" in fields:  # a ComfyUI job
        given = {"workflowId", "workflow"}
        wrapped = isinstance(params, dict) and given.isdisjoint(data) and not given.isdisjoint(params)
        return (inside, params) if wrapped and isinstance(params, dict) else None
    if "params" not in data:
        return None
    if not isinstance(params, dict):
        walk.errors.add(inside, FieldErrorType.TYPE_ERROR, "must be an object")
        return None
    return inside, params
