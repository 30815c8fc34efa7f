"""Which fields of a message are wrong, and why: collected one by one, raised together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum

from reverie_protocol.errors import ErrorCode, FieldError, ReverieError

MAX_FIELD_ERRORS = 100  # an answer stays small, whatever was sent

Loc = tuple[str | int, ...]


class FieldErrorType(StrEnum):
    """Stable kinds of wrong fields: the `type` of a `FieldError`."""

    MISSING = "missing"
    TYPE_ERROR = "type_error"
    OUT_OF_RANGE = "out_of_range"
    PATTERN = "pattern"
    CHOICE = "choice"
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    TOO_DEEP = "too_deep"
    INVALID_TEXT = "invalid_text"
    UNKNOWN_FIELD = "unknown_field"
    CONFLICT = "conflict"


class WrongValue(Exception):
    """One value cannot be accepted; whoever knows where it stands turns it into a `FieldError`."""

    def __init__(self, type_: FieldErrorType, msg: str) -> None:
        super().__init__(msg)
        self.type = type_
        self.msg = msg


class FieldErrors:
    """The wrong fields found so far."""

    def __init__(self) -> None:
        self.found: list[FieldError] = []

    def add(self, loc: Loc, type_: FieldErrorType, msg: str) -> None:
        """Note one wrong field; beyond `MAX_FIELD_ERRORS` no more are kept."""
        if len(self.found) < MAX_FIELD_ERRORS:
            self.found.append(FieldError(loc=loc, msg=msg, type=type_.value))

    def add_unknown(self, loc: Loc, key: str, known: Iterable[str]) -> None:
        """Note a field that does not exist, with the nearest name that does."""
        if len(self.found) >= MAX_FIELD_ERRORS:
            return
        name = excerpt(key)
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        self.add((*loc, name), FieldErrorType.UNKNOWN_FIELD, f"unknown field{hint}")

    def raise_if_any(self) -> None:
        """Raise ReverieError `invalid_field` with all that was noted."""
        if not self.found:
            return
        first, others = self.found[0], len(self.found) - 1
        where = ".".join(str(part) for part in first.loc) or "the message"
        more = f" ({others} more)" if others else ""
        raise ReverieError(ErrorCode.INVALID_FIELD, f"{where}: {first.msg}{more}", fields=self.found)


def excerpt(text: str, limit: int = 60) -> str:
    """A client's own text, made short and safe enough to quote back to it."""
    safe = text[: limit + 1].encode("utf-8", "replace").decode().replace("\0", "?")
    return safe if len(safe) <= limit else safe[:limit] + "…"
