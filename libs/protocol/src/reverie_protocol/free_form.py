"""Free-form JSON inside a message, such as a workflow's own parameters: anything that can be written back."""

from __future__ import annotations

from typing import NamedTuple

from reverie_protocol import scalars
from reverie_protocol.field_errors import FieldErrors, FieldErrorType, Loc, WrongValue, excerpt

MAX_DEPTH = 64  # levels of lists and objects within one message


class _Node(NamedTuple):
    """A value and the way to it.  Its place is spelt out only for an error: there may be many values."""

    value: object
    key: str | int = ""
    parent: _Node | None = None


def check_free_form(data: object, loc: Loc, errors: FieldErrors) -> None:
    """Note every text and number that could not be stored or sent on, and nesting that is too deep."""
    level = [_Node(data)]
    for _ in range(MAX_DEPTH):
        for node in level:
            try:
                _check(node.value)
            except WrongValue as wrong:
                errors.add((*loc, *_path(node)), wrong.type, wrong.msg)
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    errors.add(loc, FieldErrorType.TOO_DEEP, f"must not be nested more than {MAX_DEPTH} levels")


def _check(value: object) -> None:
    match value:
        case str():
            scalars.check_text(value)
        case int() | float():
            scalars.check_number(value)
        case dict():
            for key in value:
                scalars.check_text(key)


def _children(node: _Node) -> list[_Node]:
    match node.value:
        case dict():
            return [_Node(inner, key, node) for key, inner in node.value.items()]
        case list():
            return [_Node(inner, index, node) for index, inner in enumerate(node.value)]
        case _:
            return []


def _path(node: _Node) -> Loc:
    keys: list[str | int] = []
    while node.parent is not None:
        keys.append(excerpt(node.key) if isinstance(node.key, str) else node.key)
        node = node.parent
    return tuple(reversed(keys))
