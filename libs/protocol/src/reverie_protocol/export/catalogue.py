"""Which types are exported, in which groups.  The one list that all generated files follow."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import inspect

from reverie_protocol import comfy, comfy_bodies, controls, dream_bodies, http_bodies, model_bodies
from reverie_protocol.preview import PreviewHeader
from reverie_protocol.registry import CLIENT_MESSAGES, SERVER_MESSAGES
from reverie_protocol.subjects import BUCKETS, SUBJECTS

Structs = tuple[type[msgspec.Struct], ...]

#: Bodies of our own HTTP endpoints.
HTTP_BODIES: Final[Structs] = (
    http_bodies.JobView,
    http_bodies.JobAccepted,
    http_bodies.JobPage,
    http_bodies.JobPatch,
    http_bodies.QueueView,
    http_bodies.UploadAccepted,
    http_bodies.TextToStore,
    http_bodies.TextStored,
    http_bodies.ErrorBody,
    *model_bodies.MODEL_BODIES,
    *comfy_bodies.COMFY_BODIES,
    *dream_bodies.DREAM_BODIES,
    controls.QueueControlPatch,
)

#: Records of the KV buckets and payloads of the NATS subjects, each once.
RECORDS: Final[Structs] = tuple(
    dict.fromkeys(
        [
            *(bucket.record for bucket in BUCKETS),
            *(subject.payload for subject in SUBJECTS if subject.payload is not None),
            comfy.ComfyVerdict,
            PreviewHeader,
        ]
    )
)

ROOTS: Final[Structs] = tuple(
    dict.fromkeys([*CLIENT_MESSAGES.values(), *SERVER_MESSAGES.values(), *HTTP_BODIES, *RECORDS])
)


def reachable(roots: Structs) -> dict[str, inspect.StructType | inspect.EnumType]:
    """Every struct and enum that `roots` use, by class name; each before what uses it."""
    found: dict[str, inspect.StructType | inspect.EnumType] = {}
    for root in roots:
        _collect(inspect.type_info(root), found)
    return found


def _collect(info: inspect.Type, found: dict[str, inspect.StructType | inspect.EnumType]) -> None:
    match info:
        case inspect.Metadata(type=inner):
            _collect(inner, found)
        case inspect.UnionType(types):
            for member in types:
                _collect(member, found)
        case inspect.ListType() | inspect.VarTupleType():
            _collect(info.item_type, found)
        case inspect.DictType():
            _collect(info.value_type, found)
        case inspect.StructType():
            for field in info.fields:
                _collect(field.type, found)
            found.setdefault(info.cls.__name__, info)
        case inspect.EnumType():
            found.setdefault(info.cls.__name__, info)


def accepted_names() -> frozenset[str]:
    """Names of the structs that clients send, and of what these hold."""
    bodies = (
        http_bodies.JobPatch,
        http_bodies.TextToStore,
        controls.QueueControlPatch,
        comfy_bodies.ComfyRequest,
        comfy_bodies.ComfyInstancePut,
    )
    return frozenset(reachable((*CLIENT_MESSAGES.values(), *bodies)))
