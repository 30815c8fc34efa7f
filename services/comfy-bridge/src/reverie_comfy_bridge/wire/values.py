"""Reading what another program sends without trusting it: a wrong value reads as absent, and nothing raises.

ComfyUI writes JSON with Python's `json.dumps`, so `NaN` and `Infinity` occur in it although JSON has no such thing;
custom nodes put into messages whatever they like.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import msgspec

#: No text of ComfyUI's that is kept for a person needs to be longer, in characters.
MAX_TEXT_CHARS = 4000


def read_json(data: bytes | str) -> object | None:
    """The value of a JSON text; None if it is no JSON (or `null`)."""
    try:
        value: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = _read_python_json(data)
    return value


def _read_python_json(data: bytes | str) -> object | None:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value


def as_mapping(value: object) -> Mapping[str, object]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_sequence(value: object) -> Sequence[object]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else ()


def as_text(value: object) -> str:
    """The value if it is text, cut to what anybody reads; else an empty one."""
    return value[:MAX_TEXT_CHARS] if isinstance(value, str) else ""


def as_id(value: object) -> str:
    """The id of a node or prompt: text, or a whole number as text; else an empty one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def as_ids(value: object) -> tuple[str, ...]:
    """The ids in an array, those that are none left out."""
    return tuple(node for node in map(as_id, as_sequence(value)) if node)


def as_number(value: object) -> float | None:
    """The value if it is a finite number (not a truth value), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_count(value: object) -> int | None:
    """The value if it is a whole number from 0, else None."""
    number = as_number(value)
    return int(number) if number is not None and number >= 0 else None
