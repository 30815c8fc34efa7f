"""Fixtures of the protocol's tests."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import inspect

from reverie_protocol.client_messages import DreamStart
from reverie_protocol.comfy_bodies import ComfyRequest
from reverie_protocol.init_image import conflicts
from reverie_protocol.jobs import ComfyParams, GenerateParams
from reverie_protocol.sizes import MAX_SIDE_PX, MIN_SIDE_PX, SIDE_MULTIPLE_PX

_TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_SIDES = st.integers(MIN_SIDE_PX // SIDE_MULTIPLE_PX, MAX_SIDE_PX // SIDE_MULTIPLE_PX).map(
    lambda side: side * SIDE_MULTIPLE_PX
)
_SIZES = st.builds("{}x{}".format, _SIDES, _SIDES)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(_TEXT, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(_TEXT, max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)

Values = Callable[[type[msgspec.Struct]], st.SearchStrategy[msgspec.Struct]]


@pytest.fixture(scope="session")
def values_of() -> Values:
    """Makes a strategy for valid values of a message or record, within the bounds that its type declares."""
    return lambda cls: _values(inspect.type_info(cls))


def _values(info: inspect.Type, schema: dict[str, object] | None = None) -> st.SearchStrategy:  # type: ignore[type-arg]  # values of any message
    bounds = schema or {}
    match info:
        case inspect.Metadata():
            if (info.extra or {}).get("check"):
                return _SIZES
            if prefix := (info.extra or {}).get("strip_prefix"):
                return _values(info.type).map(lambda text: text.removeprefix(prefix))
            return _values(info.type, info.extra_json_schema)
        case inspect.UnionType(types):
            return st.one_of([_values(member) for member in types])
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            least = info.ge if info.ge is not None else bounds.get("minimum", -(2**53))
            return st.integers(least, info.le if info.le is not None else 2**53)
        case inspect.FloatType():
            least = info.ge if info.ge is not None else bounds.get("minimum", -1e12)
            most = info.le if info.le is not None else bounds.get("maximum", 1e12)
            numbers = st.floats(least, most).map(lambda number: number or 0.0)
            return numbers if info.gt is None else numbers.filter(lambda number: number > info.gt)
        case inspect.StrType(pattern=None):
            return st.text(_TEXT, min_size=info.min_length or 0, max_size=min(info.max_length or 20, 20))
        case inspect.StrType():
            pattern = info.pattern.replace("$", r"\Z")
            return st.from_regex(pattern)
        case inspect.EnumType(cls):
            return st.sampled_from(list(cls))
        case inspect.LiteralType(literals):
            return st.sampled_from(literals)
        case inspect.StructType(cls, fields):
            return st.builds(cls, **{field.name: _values(field.type) for field in fields}).map(_consistent)
        case inspect.DictType():
            return st.dictionaries(_values(info.key_type), _values(info.value_type), max_size=3)
        case inspect.ListType():
            return st.lists(_values(info.item_type), max_size=3)
        case inspect.VarTupleType():
            return st.lists(_values(info.item_type), max_size=3).map(tuple)
        case _:
            return _JSON


def _consistent(value: object) -> object:
    """The value without fields that do not go together."""
    if isinstance(value, DreamStart) and value.duration is not None:
        return msgspec.structs.replace(value, duration_hours=None)
    if isinstance(value, GenerateParams) and conflicts(value):
        return msgspec.structs.replace(value, maskImage=None, strength=None)
    if isinstance(value, ComfyParams):
        return _workflow_or_graph(value, "workflowId")
    return _workflow_or_graph(value, "workflow_id") if isinstance(value, ComfyRequest) else value


def _workflow_or_graph(job: ComfyParams | ComfyRequest, name: str) -> ComfyParams | ComfyRequest:
    """A ComfyUI job with just one of its two; `name` is the field of the other."""
    if job.workflow is not None:
        return msgspec.structs.replace(job, **{name: None})
    return job if getattr(job, name) is not None else msgspec.structs.replace(job, **{name: "w"})
