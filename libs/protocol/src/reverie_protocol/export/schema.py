"""JSON Schema 2020-12 of every message and record.

The schemas come from the types; on top of them this states what parsing accepts beyond a type: lanes by name,
aliases of fields, and the parameters of `job:submit` beside `jobType` or under `params`.
"""

from __future__ import annotations

import copy
from enum import Enum
from inspect import cleandoc
from typing import Any

import msgspec
from msgspec import inspect

from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.export.catalogue import (
    HTTP_BODIES,
    RECORDS,
    ROOTS,
    accepted_names,
    reachable,
)
from reverie_protocol.job_submission import PARAMETERS
from reverie_protocol.jobs import ComfyParams
from reverie_protocol.registry import CLIENT_MESSAGES, SERVER_MESSAGES
from reverie_protocol.validation import names_of

Schema = dict[str, Any]

#: A ComfyUI job is a named workflow or a graph, never both; the other one may be null.
_NAMED: Schema = {
    "required": ["workflowId"],
    "properties": {"workflowId": {"type": "string"}, "workflow": {"type": "null"}},
}
_GRAPH: Schema = {
    "required": ["workflow"],
    "properties": {"workflow": {"type": "object"}, "workflowId": {"type": "null"}},
}
_WORKFLOW_OR_GRAPH: Schema = {"oneOf": [_NAMED, _GRAPH]}


def schema_document() -> Schema:
    """The whole schema: `#/$defs/ClientMessage`, `ServerMessage`, and each message and record by name."""
    prefix = "#/$defs/"
    definitions = components(prefix)
    definitions["ClientMessage"] = _one_of(
        "Anything a client may send on `/v1/ws`.", CLIENT_MESSAGES.values(), prefix
    )
    definitions["ServerMessage"] = _one_of(
        "Anything a server may send on `/v1/ws` as text.", SERVER_MESSAGES.values(), prefix
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:reverie:protocol:1",
        "title": "Reverie protocol",
        "description": "Generated from libs/protocol. Times are epoch seconds, sizes pixels.",
        "anyOf": [
            {"$ref": prefix + name}
            for name in (
                "ClientMessage",
                "ServerMessage",
                *(body.__name__ for body in (*HTTP_BODIES, *RECORDS)),
            )
        ],
        "$defs": dict(sorted(definitions.items())),
    }


def components(prefix: str) -> dict[str, Schema]:
    """The schema of each exported struct and enum by class name; references start with `prefix`."""
    _, schemas = msgspec.json.schema_components(ROOTS, schema_hook=_free_form, ref_template=prefix + "{name}")
    inputs = accepted_names()
    for name, info in reachable(ROOTS).items():
        schema = schemas[name]
        schema["description"] = cleandoc(schema["description"])
        if isinstance(info, inspect.EnumType):
            schema["enum"] = [member.value for member in info.cls]
            continue
        for field in info.fields:
            _describe_field(schema, field, aliases=name in inputs)
    for name in ("ComfyParams", "ComfyRequest"):
        schemas[name] |= _WORKFLOW_OR_GRAPH
    schemas["JobSubmit"] = _submission(schemas)
    return schemas


def _free_form(_type: type) -> Schema:
    """`object` in a type is any JSON; an empty schema would read as none."""
    return {"description": "any JSON"}


def _one_of(description: str, messages: Any, prefix: str) -> Schema:
    return {
        "description": description,
        "oneOf": [{"$ref": prefix + message.__name__} for message in messages],
    }


def _describe_field(schema: Schema, field: inspect.Field, *, aliases: bool) -> None:
    properties = schema["properties"]
    # Each member names its own tag; `discriminator` is OpenAPI's and no keyword of JSON Schema or AsyncAPI 3.
    properties[field.encode_name].pop("discriminator", None)
    if _by_name(field.type):
        _accept_names(properties[field.encode_name], field.type)
    if aliases:
        for alias in names_of(field)[1:]:
            properties[alias] = {
                **copy.deepcopy(properties[field.encode_name]),
                "description": f"alias of `{field.encode_name}`",
            }


def _by_name(info: inspect.Type) -> bool:
    members = info.types if isinstance(info, inspect.UnionType) else (info,)
    return any(
        isinstance(member, inspect.Metadata) and bool((member.extra or {}).get("by_name"))
        for member in members
    )


def _accept_names(schema: Schema, info: inspect.Type) -> None:
    """Let an enum's lower-case names stand for its numbers."""
    members = info.types if isinstance(info, inspect.UnionType) else (info,)
    for member in members:
        inner = member.type if isinstance(member, inspect.Metadata) else member
        if isinstance(inner, inspect.EnumType):
            target = next((s for s in schema.get("anyOf", ()) if "$ref" in s), schema)
            target.pop("$ref")
            target["enum"] = _values_and_names(inner.cls)


def _values_and_names(cls: type[Enum]) -> list[object]:
    return [member.value for member in cls] + [member.name.lower() for member in cls]


def _submission(schemas: dict[str, Schema]) -> Schema:
    """`job:submit`: one shape for each `jobType`."""
    generated = schemas["JobSubmit"]
    envelope = {k: v for k, v in generated["properties"].items() if k != "params"}
    return {
        "title": "JobSubmit",
        "description": cleandoc(JobSubmit.__doc__ or ""),
        "oneOf": [
            _submission_of(job_type.value, envelope, schemas[params.__name__], params is ComfyParams)
            for job_type, params in PARAMETERS.items()
        ],
    }


def _submission_of(job_type: str, envelope: Schema, params: Schema, comfy: bool) -> Schema:
    flat = {name: schema for name, schema in params["properties"].items() if name != "kind"}
    required = [name for name in params["required"] if name != "kind"]
    nested: Schema = {"type": "object", "properties": flat, "additionalProperties": False}
    properties: Schema = {
        **{name: envelope[name] for name in ("type", "id")},
        "jobType": {"const": job_type},
        **{name: schema for name, schema in envelope.items() if name not in ("type", "id")},
        **flat,
    }
    if not comfy:
        properties["params"] = {**nested, "description": "the same parameters, grouped"}
    return {
        "type": "object",
        "description": params["description"],
        "properties": properties,
        "required": ["type", "jobType"],
        "additionalProperties": False,
        **(_flat_or_grouped_workflow(nested) if comfy else {"allOf": _flat_or_grouped(nested, required)}),
    }


def _flat_or_grouped(nested: Schema, required: list[str]) -> list[Schema]:
    """Each required parameter stands beside `jobType` or under `params`."""
    under_params = {"properties": {"params": nested}, "required": ["params"]}
    return [
        {"anyOf": [{"required": [name]}, {**under_params, "properties": {"params": {"required": [name]}}}]}
        for name in required
    ]


def _flat_or_grouped_workflow(nested: Schema) -> Schema:
    """`params` are the workflow's own where the workflow stands beside it, else they hold all of it."""
    beside = {"anyOf": [{"required": ["workflowId"]}, {"required": ["workflow"]}]}
    grouped = {**nested, **_WORKFLOW_OR_GRAPH}
    return {
        "oneOf": [
            _NAMED,
            _GRAPH,
            {"not": beside, "properties": {"params": grouped}, "required": ["params"]},
        ]
    }
