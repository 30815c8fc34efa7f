"""Builds the OpenAPI 3.1 document."""

from __future__ import annotations

import copy
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from reverie_gateway.authentication import is_open
from reverie_gateway.openapi.compatibility import COMPATIBILITY
from reverie_gateway.openapi.endpoints import ENDPOINTS
from reverie_gateway.openapi.entries import Answer, Endpoint, Header, Parameter
from reverie_gateway.readiness import Readiness
from reverie_gateway.storage_probe import StorageReport
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode
from reverie_protocol.export.schema import components
from reverie_protocol.openai_bodies import OPENAI_BODIES
from reverie_protocol.sdapi_bodies import SDAPI_BODIES

Document = dict[str, Any]

ALL = (*ENDPOINTS, *COMPATIBILITY)

_PREFIX = "#/components/schemas/"
_BEARER: Document = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A token signed with `auth.key` (HS256) or for its `auth.public_key` (EdDSA); `sub` "
    "is the owner of what it submits. A gateway without a key, as on one's own machine, needs none.",
}
#: Bodies of existing clients, some of which send null for what they leave open.
_NULL_IS_ABSENT = (
    *("GenerateRequest", "ImageGeneration", "ComfyRequest"),
    *("TextToImage", "ImageToImage", "SingleEnlargement", "ProgressQuestion", "Options"),
)
_RETRIED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@cache
def openapi_document() -> Document:
    """The whole document; callers must not change it."""
    paths: Document = {}
    for endpoint in ALL:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Reverie",
            "version": "1.0.0",
            "description": "HTTP side of the gateway. Progress is pushed on the WebSocket `/v1/ws`, which the "
            "AsyncAPI document describes; both tell the same story. Every answer carries `X-Request-Id`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(endpoint.tag for endpoint in ALL)],
        "paths": paths,
        "security": [{"bearer": []}],
        "components": {"schemas": _schemas(paths), "securitySchemes": {"bearer": _BEARER}},
    }


def encoded_document() -> bytes:
    """The document as the file and the endpoint have it."""
    return msgspec.json.format(msgspec.json.encode(openapi_document()), indent=2) + b"\n"


def _operation(endpoint: Endpoint) -> Document:
    responses = {str(answer.status): _answer(answer) for answer in endpoint.answers}
    closed = not is_open(endpoint.path)
    errors = (*endpoint.errors, *((ErrorCode.UNAUTHENTICATED,) if closed else ()))
    if endpoint.body is not None or endpoint.form is not None:
        errors = (*errors, ErrorCode.REQUEST_TIMEOUT)
    for status in sorted({ERROR_TRAITS[code].status for code in errors}):
        responses.setdefault(str(status), _error(status, errors))
    operation: Document = {
        "operationId": endpoint.operation_id,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "parameters": [_parameter(parameter) for parameter in endpoint.parameters],
        "responses": responses,
    }
    if not closed or endpoint.token_optional:
        operation["security"] = [{}, {"bearer": []}] if closed else []
    if endpoint.description:
        operation["description"] = endpoint.description
    content: Document = {}
    if endpoint.body is not None:
        content["application/json"] = {"schema": {"$ref": _PREFIX + endpoint.body}}
    if endpoint.form is not None:
        content["multipart/form-data"] = {"schema": endpoint.form}
    if content:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _answer(answer: Answer) -> Document:
    document: Document = {"description": answer.description}
    if answer.content:
        document["content"] = {
            media: {"schema": {"$ref": _PREFIX + schema} if isinstance(schema, str) else schema}
            for media, schema in answer.content.items()
        }
    if answer.headers:
        document["headers"] = dict(map(_header, answer.headers))
    return document


def _header(header: Header) -> tuple[str, Document]:
    return header.name, {"description": header.description, "schema": header.schema}


def _parameter(parameter: Parameter) -> Document:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _error(status: int, codes: tuple[ErrorCode, ...]) -> Document:
    here = sorted(code.value for code in codes if ERROR_TRAITS[code].status == status)
    document: Document = {
        "description": f"{HTTPStatus(status).phrase}; `code` is {' or '.join(f'`{code}`' for code in here)}",
        "content": {"application/json": {"schema": {"$ref": _PREFIX + "ErrorBody"}}},
    }
    if status == HTTPStatus.UNAUTHORIZED:
        challenge = Header(
            "WWW-Authenticate", '`Bearer`, with `error="invalid_token"` after a token that is refused'
        )
        document["headers"] = dict([_header(challenge)])
    if status in _RETRIED:
        retry = Header("Retry-After", "seconds after which to try again", {"type": "integer"})
        document["headers"] = dict([_header(retry)])
    return document


def _schemas(paths: Document) -> Document:
    """The components that are referred to, directly or through others."""
    known = components(_PREFIX)
    bodies = [Readiness, StorageReport, *OPENAI_BODIES, *SDAPI_BODIES]
    _, own = msgspec.json.schema_components(
        bodies, schema_hook=lambda _type: {"description": "any JSON"}, ref_template=_PREFIX + "{name}"
    )
    known = own | known
    known["GenerateRequest"] = _generate_request(known["GenerateParams"])
    for name in _NULL_IS_ABSENT:
        known[name] = _with_nulls(known[name])
    known["JobRequest"] = _job_request(known["JobSubmit"])
    used: Document = {}
    _collect(paths, known, used)
    return dict(sorted(used.items()))


def _generate_request(params: Document) -> Document:
    """The parameters without the tag that only records carry; this endpoint ignores what it does not know."""
    request = copy.deepcopy(params)
    del request["properties"]["kind"]
    request["required"] = [name for name in request["required"] if name != "kind"]
    return {**request, "title": "GenerateRequest", "additionalProperties": True}


def _with_nulls(request: Document) -> Document:
    """The body of an endpoint that takes null for an optional field that is absent."""
    required = request.get("required", ())
    properties = {
        name: schema if name in required else {"anyOf": [schema, {"type": "null"}]}
        for name, schema in request["properties"].items()
    }
    return {**request, "properties": properties}


def _job_request(submit: Document) -> Document:
    """The body of `POST /v1/jobs` is a `job:submit` whose `type` may be left out."""
    request = copy.deepcopy(submit)
    for shape in request["oneOf"]:
        shape["required"] = [name for name in shape["required"] if name != "type"]
    return {**request, "title": "JobRequest"}


def _collect(node: Any, known: Document, used: Document) -> None:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix(_PREFIX)
            if name not in used:
                used[name] = known[name]
                _collect(known[name], known, used)
        for value in node.values():
            _collect(value, known, used)
    elif isinstance(node, list | tuple):
        for value in node:
            _collect(value, known, used)
