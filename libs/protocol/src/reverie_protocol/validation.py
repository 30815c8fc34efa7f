"""From decoded JSON to a typed value, naming every wrong field at once.

`msgspec.convert` stops at the first wrong field; a person who filled in a form wants all of them.  So this walks
the same type information (`msgspec.inspect`) and notes one `FieldError` per wrong field.  Nothing is converted
silently: see `reverie_protocol.scalars` for what each type accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar, cast

import msgspec
from msgspec import inspect

from reverie_protocol import scalars
from reverie_protocol.field_errors import (
    FieldErrors,
    FieldErrorType,
    Loc,
    WrongValue,
    excerpt,
)
from reverie_protocol.free_form import check_free_form

T = TypeVar("T", bound=msgspec.Struct)
Source = tuple[Loc, Mapping[str, object]]  # an object a client sent, and where it stands


def validate(
    struct_type: type[T],
    data: object,
    *,
    loc_prefix: Loc = (),
    forbid_unknown: bool | None = None,
    null_is_absent: bool = False,
) -> T:
    """`data` (decoded JSON) as `struct_type`, or ReverieError `invalid_field` with every wrong field.

    `forbid_unknown` None follows each struct's own declaration; True or False holds at all levels.  With
    `null_is_absent` a null in `data` itself stands for a field's default, also where the field is not nullable; in
    an object within it null is a value.
    """
    walk = Walk(forbid_unknown=forbid_unknown, null_is_absent=null_is_absent)
    value = walk.value(_type_info(struct_type), data, loc_prefix)
    walk.errors.raise_if_any()
    return cast(T, value)


@cache
def _type_info(type_: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(type_)


@cache
def struct_fields(struct_type: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    """The fields of a struct by their name on the wire."""
    info = cast(inspect.StructType, _type_info(struct_type))
    return {field.encode_name: field for field in info.fields}


def names_of(field: inspect.Field) -> tuple[str, ...]:
    """What a client may call a field: its name, a declared alias, and camelCase for snake_case."""
    name = field.encode_name
    first, *rest = name.split("_")
    aliases = (first + "".join(part.capitalize() for part in rest),) if rest else ()
    extra = (field.type.extra or {}) if isinstance(field.type, inspect.Metadata) else {}
    return (name, *aliases, *extra.get("aliases", ()))


class Walk:
    """One conversion: values out, wrong fields collected in `errors`."""

    def __init__(self, *, forbid_unknown: bool | None = None, null_is_absent: bool = False) -> None:
        self.errors = FieldErrors()
        self._forbid_unknown = forbid_unknown
        self._null_is_absent = null_is_absent

    def value(self, info: inspect.Type, data: object, loc: Loc) -> object:
        """`data` as the described type; what is wrong is noted, and None returned in its place."""
        try:
            return self._convert(info, data, loc)
        except WrongValue as wrong:
            self.errors.add(loc, wrong.type, wrong.msg)
            return None

    def fields(self, fields: Iterable[inspect.Field], sources: Sequence[Source]) -> dict[str, object]:
        """Constructor arguments for `fields`, each from whichever source gives it.

        A field absent everywhere is left to its default.  Given twice (in two sources, or under its name and an
        alias) it must be given alike.
        """
        arguments: dict[str, object] = {}
        null_is_absent, self._null_is_absent = self._null_is_absent, False
        for field in fields:
            hits = [
                ((*loc, name), data[name])
                for loc, data in sources
                for name in names_of(field)
                if name in data
            ]
            if not hits:
                if field.required:
                    loc = (*sources[-1][0], field.encode_name)
                    self.errors.add(loc, FieldErrorType.MISSING, "is required")
                continue
            loc, value = hits[0]
            for other_loc, other in hits[1:]:
                if not _alike(other, value):
                    where = ".".join(map(str, loc))
                    self.errors.add(other_loc, FieldErrorType.CONFLICT, f"differs from {where}")
            if not (value is None and null_is_absent and not field.required):
                arguments[field.name] = self.value(field.type, value, loc)
        return arguments

    def refuse_unknown(self, known: Iterable[str], source: Source) -> None:
        """Note every key of a source that is not known."""
        loc, data = source
        for key in data:
            if key not in known:
                self.errors.add_unknown(loc, key, known)

    def _convert(  # noqa: PLR0911  one return for each JSON type
        self, info: inspect.Type, data: object, loc: Loc
    ) -> object:
        meta = info if isinstance(info, inspect.Metadata) else inspect.Metadata(info)
        match meta.type:
            case inspect.NoneType():
                return scalars.to_null(data)
            case inspect.BoolType():
                return scalars.to_bool(data)
            case inspect.IntType() as number:
                return scalars.to_int(number, data)
            case inspect.FloatType() as number:
                return scalars.to_float(number, data)
            case inspect.StrType() as text:
                return _text(meta, text, data)
            case inspect.EnumType(cls):
                by_name = bool((meta.extra or {}).get("by_name"))
                return scalars.to_enum(cls, data, by_name=by_name)
            case inspect.LiteralType(values):
                return scalars.to_literal(values, data)
            case _:
                return self._compound(meta.type, data, loc)

    def _compound(self, info: inspect.Type, data: object, loc: Loc) -> object:
        match info:
            case inspect.UnionType(types):
                return self._union(types, data, loc)
            case inspect.StructType():
                return self._struct(info, data, loc)
            case inspect.DictType():
                return self._dict(info, data, loc)
            case inspect.ListType() | inspect.VarTupleType():
                return self._list(info, data, loc)
            case inspect.AnyType() | inspect.CustomType():
                check_free_form(data, loc, self.errors)
                return data
            case _:
                raise TypeError(f"no message may hold a {type(info).__name__}")

    def _struct(self, info: inspect.StructType, data: object, loc: Loc) -> object:
        if not isinstance(data, dict):
            raise scalars.expected("an object", data)
        before = len(self.errors.found)
        known = {name for field in info.fields for name in names_of(field)}
        if info.tag_field is not None:
            known.add(info.tag_field)
            if data.get(info.tag_field, info.tag) != info.tag:
                loc_of_tag = (*loc, info.tag_field)
                self.errors.add(loc_of_tag, FieldErrorType.CHOICE, f"must be {info.tag}")
        arguments = self.fields(info.fields, [(loc, data)])
        if info.forbid_unknown_fields if self._forbid_unknown is None else self._forbid_unknown:
            self.refuse_unknown(known, (loc, data))
        return None if len(self.errors.found) > before else info.cls(**arguments)

    def _dict(self, info: inspect.DictType, data: object, loc: Loc) -> object:
        if not isinstance(data, dict):
            raise scalars.expected("an object", data)
        if isinstance(info.value_type, inspect.CustomType):
            check_free_form(data, loc, self.errors)
            return data
        return {
            key: self.value(info.value_type, item, (*loc, excerpt(key)))
            for key, item in data.items()
            if self.value(info.key_type, key, (*loc, excerpt(key))) is not None
        }

    def _list(self, info: inspect.ListType | inspect.VarTupleType, data: object, loc: Loc) -> object:
        if not isinstance(data, list):
            raise scalars.expected("a list", data)
        if info.max_length is not None and len(data) > info.max_length:
            raise WrongValue(FieldErrorType.TOO_LONG, f"must have at most {info.max_length} entries")
        items = [self.value(info.item_type, item, (*loc, i)) for i, item in enumerate(data)]
        return tuple(items) if isinstance(info, inspect.VarTupleType) else items

    def _union(self, types: Iterable[inspect.Type], data: object, loc: Loc) -> object:
        if data is None and any(isinstance(member, inspect.NoneType) for member in types):
            return None
        members = [member for member in types if not isinstance(member, inspect.NoneType)]
        structs = [member for member in members if isinstance(member, inspect.StructType)]
        if len(structs) > 1 and isinstance(data, dict):
            return self._struct(_tagged(structs, data), data, loc)
        if len(members) > 1:
            kind = scalars.kind_of(data)
            fitting = [member for member in members if kind in _kinds(member)]
            if not fitting:
                what = dict.fromkeys(kind for member in members for kind in _kinds(member))
                raise scalars.expected(" or ".join(what), data)
            members = fitting
        return self._convert(members[0], data, loc)


def _text(meta: inspect.Metadata, info: inspect.StrType, data: object) -> str:
    """A text field: its pattern, then the check that its type names, then its length."""
    text = scalars.to_text(info, data, (meta.extra_json_schema or {}).get("description"))
    check = (meta.extra or {}).get("check")
    if check is not None:
        try:
            check(text)
        except ValueError as problem:
            raise WrongValue(FieldErrorType.OUT_OF_RANGE, str(problem)) from None
    scalars.check_length(info, text)
    return text.removeprefix((meta.extra or {}).get("strip_prefix", ""))


def _tagged(structs: list[inspect.StructType], data: Mapping[str, object]) -> inspect.StructType:
    tag_field = structs[0].tag_field or ""
    for struct in structs:
        if data.get(tag_field) == struct.tag:
            return struct
    choices = ", ".join(str(struct.tag) for struct in structs)
    raise WrongValue(FieldErrorType.CHOICE, f"its {tag_field} must be one of {choices}")


_JSON_KINDS: dict[type[inspect.Type], tuple[str, ...]] = {
    inspect.BoolType: ("a boolean",),
    inspect.IntType: ("a number",),
    inspect.FloatType: ("a number",),
    inspect.StrType: ("a string",),
    inspect.LiteralType: ("a string",),
    inspect.EnumType: ("a string", "a number"),
    inspect.StructType: ("an object",),
    inspect.DictType: ("an object",),
    inspect.ListType: ("a list",),
    inspect.VarTupleType: ("a list",),
}


def _kinds(info: inspect.Type) -> tuple[str, ...]:
    return _JSON_KINDS[type(info.type if isinstance(info, inspect.Metadata) else info)]


def _alike(one: object, other: object) -> bool:
    """Whether two values of JSON are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)
