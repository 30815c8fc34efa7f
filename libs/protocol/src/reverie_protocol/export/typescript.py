"""TypeScript types of every message and record, with their descriptions and bounds as comments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import IntEnum
from inspect import cleandoc

import msgspec
from msgspec import inspect

from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import CLOSE_CODES, ERROR_TRAITS
from reverie_protocol.export.catalogue import HTTP_BODIES, RECORDS, ROOTS, accepted_names, reachable
from reverie_protocol.field_errors import FieldErrorType
from reverie_protocol.job_submission import PARAMETERS
from reverie_protocol.jobs import ComfyParams
from reverie_protocol.registry import CLIENT_MESSAGES, SERVER_MESSAGES

_HEAD = """\
// Generated from libs/protocol by `make generate`; do not edit.
// Types of everything on Reverie's WebSocket (`/v1/ws`), in its own HTTP bodies and on its NATS subjects.
"""

_WORKFLOW_OR_GRAPH = " & ({ workflowId: string; workflow?: null } | { workflow: object; workflowId?: null })"


def typescript_module() -> str:
    """The text of `reverie.ts`."""
    inputs = accepted_names()
    parts = [_HEAD, _error_codes(), _close_codes(), _field_error_type()]
    for name, info in reachable(ROOTS).items():
        if isinstance(info, inspect.EnumType):
            parts.append(_enum(info))
        elif info.cls is JobSubmit:
            parts.append(_submission(info))
        else:
            parts.append(_interface(info, accepted=name in inputs))
    parts.append(_union("ClientMessage", "Anything a client may send.", CLIENT_MESSAGES.values()))
    parts.append(_union("ServerMessage", "Anything a server may send as text.", SERVER_MESSAGES.values()))
    parts.append(_by_type("ClientMessages", CLIENT_MESSAGES))
    parts.append(_by_type("ServerMessages", SERVER_MESSAGES))
    parts.append(_union("HttpBody", "Bodies of our own HTTP endpoints.", HTTP_BODIES))
    parts.append(_union("BusRecord", "Records of the KV buckets and payloads of the NATS subjects.", RECORDS))
    return "\n".join(parts)


def _comment(text: str, indent: str = "") -> str:
    lines = cleandoc(text).replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    body = "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines)
    return f"{indent}/**\n{body}{indent} */\n"


def _literals(values: Iterable[object]) -> str:
    return " | ".join(json.dumps(value) for value in values)


def _error_codes() -> str:
    entries = "".join(
        f"  {code.value}: {{ status: {t.status}, retryable: {json.dumps(t.retryable)} }},\n"
        for code, t in ERROR_TRAITS.items()
    )
    return (
        _comment("Every error code: its HTTP status, and whether the same request may succeed later.")
        + f"export const ERROR_CODES = {{\n{entries}}} as const;\n"
        + "export type ErrorCode = keyof typeof ERROR_CODES;\n"
    )


def _close_codes() -> str:
    entries = "".join(
        f"  {close.code}: {{ reason: {json.dumps(close.reason)}, reconnect: {json.dumps(close.reconnect)} }},\n"
        for close in CLOSE_CODES
    )
    return (
        _comment("WebSocket close codes of ours, and whether to come back.")
        + f"export const CLOSE_CODES = {{\n{entries}}} as const;\n"
    )


def _field_error_type() -> str:
    return (
        _comment("Kinds of wrong fields.")
        + f"export type FieldErrorType = {_literals(kind.value for kind in FieldErrorType)};\n"
    )


def _enum(info: inspect.EnumType) -> str:
    name = info.cls.__name__
    text = _comment(info.cls.__doc__ or "")
    text += f"export type {name} = {_literals(member.value for member in info.cls)};\n"
    if issubclass(info.cls, IntEnum):
        names = _literals(member.name.lower() for member in info.cls)
        text += f"export type {name}Name = {names};\n"
    return text


def _interface(info: inspect.StructType, *, accepted: bool) -> str:
    lines = [_comment(info.cls.__doc__ or ""), f"export interface {info.cls.__name__} {{\n"]
    if info.tag_field is not None:
        lines.append(f"  {info.tag_field}: {json.dumps(info.tag)};\n")
    for field in info.fields:
        optional = not field.required if accepted else _may_be_left_out(info, field)
        lines.append(_property(field, optional=optional))
    return "".join([*lines, "}\n"])


def _may_be_left_out(info: inspect.StructType, field: inspect.Field) -> bool:
    """Whether a value of ours may lack the field; msgspec never omits what an own factory makes."""
    has_default = field.default is not msgspec.NODEFAULT or field.default_factory in (dict, list)
    return info.cls.__struct_config__.omit_defaults and has_default


def _property(field: inspect.Field, *, optional: bool) -> str:
    note = "; ".join(filter(None, [_description(field.type), _bounds(field.type), _default(field)]))
    comment = _comment(note, "  ") if note else ""
    return f"{comment}  {field.encode_name}{'?' if optional else ''}: {_type(field.type)};\n"


def _members(info: inspect.Type) -> tuple[inspect.Type, ...]:
    return info.types if isinstance(info, inspect.UnionType) else (info,)


def _description(info: inspect.Type) -> str:
    for member in _members(info):
        if isinstance(member, inspect.Metadata) and member.extra_json_schema:
            return str(member.extra_json_schema.get("description", ""))
    return ""


def _bounds(info: inspect.Type) -> str:
    for member in _members(info):
        schema: dict[str, object] = {}
        plain = member.type if isinstance(member, inspect.Metadata) else member
        if isinstance(member, inspect.Metadata):
            schema = member.extra_json_schema or {}
        match plain:
            case inspect.IntType() | inspect.FloatType():
                least = plain.ge if plain.ge is not None else schema.get("minimum")
                most = plain.le if plain.le is not None else schema.get("maximum")
                if least is not None or most is not None:
                    return f"{'' if least is None else least}..{'' if most is None else most}"
            case inspect.StrType() if plain.max_length is not None:
                return f"at most {plain.max_length} characters"
    return ""


def _default(field: inspect.Field) -> str:
    default = field.default
    if isinstance(default, bool | int | float | str) and default != "":
        return f"default {json.dumps(default)}"
    return ""


def _annotated(info: inspect.Metadata) -> str:
    extra = info.extra or {}
    if "open_enum" in extra:  # completes the known values and bears others
        return f"{extra['open_enum']} | (string & {{}})"
    return _type(info.type) + (" | LaneName" if extra.get("by_name") else "")


def _type(info: inspect.Type) -> str:  # noqa: PLR0911  one return for each kind of type
    match info:
        case inspect.Metadata():
            return _annotated(info)
        case inspect.UnionType(types):
            return " | ".join(dict.fromkeys(_type(member) for member in types))
        case inspect.NoneType():
            return "null"
        case inspect.BoolType():
            return "boolean"
        case inspect.IntType() | inspect.FloatType():
            return "number"
        case inspect.StrType():
            return "string"
        case inspect.LiteralType(values):
            return _literals(values)
        case inspect.EnumType(cls) | inspect.StructType(cls):
            return cls.__name__
        case inspect.DictType():
            return f"{{ [key: string]: {_type(info.value_type)} }}"
        case inspect.ListType() | inspect.VarTupleType():
            inner = _type(info.item_type)
            return f"readonly ({inner})[]" if "|" in inner else f"readonly {inner}[]"
        case _:
            return "unknown"


def _submission(info: inspect.StructType) -> str:
    envelope = "".join(
        _property(field, optional=True) for field in info.fields if field.encode_name != "params"
    )
    shapes = []
    for job_type, params in PARAMETERS.items():
        envelope_of = f"JobSubmitEnvelope & {{ jobType: {json.dumps(job_type.value)} }}"
        own = f'Omit<{params.__name__}, "kind">' + (_WORKFLOW_OR_GRAPH if params is ComfyParams else "")
        shapes.append(f"\n  | ({envelope_of} & {own})")
        if params is not ComfyParams:
            shapes.append(f"\n  | ({envelope_of} & {{ params: {own} }})")
    return (
        _comment("What every `job:submit` may hold beside its job's parameters.")
        + f'export interface JobSubmitEnvelope {{\n  type: "job:submit";\n{envelope}}}\n'
        + _comment(info.cls.__doc__ or "")
        + f"export type JobSubmit ={''.join(shapes)};\n"
    )


def _union(name: str, comment: str, members: Iterable[type[msgspec.Struct]]) -> str:
    lines = "".join(f"\n  | {member.__name__}" for member in members)
    return f"{_comment(comment)}export type {name} ={lines};\n"


def _by_type(name: str, messages: dict[str, type]) -> str:
    lines = "".join(f"  {json.dumps(type_)}: {cls.__name__};\n" for type_, cls in messages.items())
    return f"{_comment('Message by its `type`.')}export interface {name} {{\n{lines}}}\n"
