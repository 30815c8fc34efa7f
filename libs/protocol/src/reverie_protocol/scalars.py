"""Single JSON values: what each declared type accepts, and what a person is told otherwise."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import Enum, IntEnum
from functools import cache

from msgspec import inspect

from reverie_protocol.field_errors import FieldErrorType, WrongValue

MAX_INT = 2**63 - 1  # what every JSON library of ours can write back
Bound = float | None


def kind_of(data: object) -> str:
    """What a decoded JSON value is, in words."""
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "a boolean"
    if isinstance(data, int | float):
        return "a number"
    if isinstance(data, str):
        return "a string"
    return "a list" if isinstance(data, list | tuple) else "an object"


def expected(what: str, data: object) -> WrongValue:
    """The error for a value of the wrong JSON type."""
    return WrongValue(FieldErrorType.TYPE_ERROR, f"must be {what}, not {kind_of(data)}")


def to_null(data: object) -> object:
    """Null."""
    if data is not None:
        raise expected("null", data)
    return data


def to_bool(data: object) -> bool:
    """True or false; numbers are neither."""
    if not isinstance(data, bool):
        raise expected("a boolean", data)
    return data


def to_int(info: inspect.IntType, data: object) -> int:
    """A whole number; 4.0 is one, 4.5, "4" and true are not."""
    value = _whole(data, "an integer")
    _check_range(value, info, "an integer")
    return value


def _whole(data: object, what: str) -> int:
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise expected(what, data)
    if isinstance(data, float):
        if not math.isfinite(data):
            raise WrongValue(FieldErrorType.OUT_OF_RANGE, f"must be {what}, not infinite")
        if not data.is_integer():
            raise WrongValue(FieldErrorType.TYPE_ERROR, f"must be {what}, not a fraction")
    value = int(data)
    if abs(value) > MAX_INT:
        raise WrongValue(FieldErrorType.OUT_OF_RANGE, f"must be {what} of at most 64 bits")
    return value


def to_float(info: inspect.FloatType, data: object) -> float:
    """A finite number."""
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise expected("a number", data)
    try:
        value = float(data)
    except OverflowError:
        value = math.inf
    _check_range(value, info, "a number")
    if not math.isfinite(value):
        raise WrongValue(FieldErrorType.OUT_OF_RANGE, "must be a finite number")
    return value


def _check_range(value: float, info: inspect.IntType | inspect.FloatType, what: str) -> None:
    inside = (
        (info.ge is None or value >= info.ge)
        and (info.le is None or value <= info.le)
        and (info.gt is None or value > info.gt)
        and (info.lt is None or value < info.lt)
    )
    if not inside:
        raise WrongValue(FieldErrorType.OUT_OF_RANGE, f"must be {what} {_range(info)}")


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f"from {info.ge} to {info.le}"
    bounds: tuple[tuple[str, Bound], ...] = (
        ("at least", info.ge),
        ("at most", info.le),
        ("greater than", info.gt),
        ("less than", info.lt),
    )
    return " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)


def to_text(info: inspect.StrType, data: object, description: str | None) -> str:
    """Text that can be stored and sent on: no NUL, no lone surrogate, within its bounds."""
    if not isinstance(data, str):
        raise expected("a string", data)
    check_text(data)
    if info.pattern is not None and not _pattern(info.pattern).search(data):
        what = description or f"a string that matches {info.pattern}"
        raise WrongValue(FieldErrorType.PATTERN, f"must be {what}")
    return data


def check_length(info: inspect.StrType, text: str) -> None:
    """Bounds of a text in characters."""
    if info.max_length is not None and len(text) > info.max_length:
        raise WrongValue(
            FieldErrorType.TOO_LONG,
            f"must have at most {info.max_length} characters, not {len(text)}",
        )
    if info.min_length is not None and len(text) < info.min_length:
        raise WrongValue(FieldErrorType.TOO_SHORT, f"must have at least {info.min_length} characters")


def check_text(text: str) -> None:
    """Refuse text that no store or JSON writer of ours could carry."""
    if "\0" in text:
        raise WrongValue(FieldErrorType.INVALID_TEXT, "must not contain NUL characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise WrongValue(
                FieldErrorType.INVALID_TEXT, "must be valid Unicode, without lone surrogates"
            ) from None


def check_number(number: float) -> None:
    """Refuse a free-form number that no JSON writer of ours could carry."""
    if abs(number) > MAX_INT if isinstance(number, int) else not math.isfinite(number):
        raise WrongValue(FieldErrorType.OUT_OF_RANGE, "must be a finite number of at most 64 bits")


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    # The `$` of JSON Schema is the very end; Python's also matches before a last newline.
    return re.compile(re.sub(r"\$$", r"\\Z", pattern), re.ASCII)


def to_enum(cls: type[Enum], data: object, *, by_name: bool) -> Enum:
    """A member of `cls` by value; by lower-case name too where a field says so."""
    choices: list[str] = [str(member.value) for member in cls]
    if by_name:
        names = {member.name.lower(): member for member in cls}
        if isinstance(data, str) and data in names:
            return names[data]
        choices += names
    value = _whole(data, "a number") if _is_number(data) and issubclass(cls, IntEnum) else data
    for member in cls:
        if type(value) is type(member.value) and value == member.value:
            return member
    raise choice_error(choices)


def to_literal(values: Sequence[object], data: object) -> object:
    """One of the given values."""
    if not any(type(data) is type(value) and data == value for value in values):
        raise choice_error([str(value) for value in values])
    return data


def choice_error(choices: Sequence[str]) -> WrongValue:
    """The error for a value that is none of `choices`."""
    return WrongValue(FieldErrorType.CHOICE, f"must be one of {', '.join(choices)}")


def _is_number(data: object) -> bool:
    return isinstance(data, int | float) and not isinstance(data, bool)
