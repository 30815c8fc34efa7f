"""Bodies of other APIs: a field is honoured, or harmless as it was sent, or refused by name; never passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace as _replaced

from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.field_errors import FieldErrors, FieldErrorType, Loc
from reverie_protocol.validation import validate

Body = TypeVar("Body", bound=msgspec.Struct)
BODY: Final[Loc] = ("body",)


class Harmless(msgspec.Struct, frozen=True):
    """A field of the other API that Reverie has nothing for: which of its values ask for nothing.

    No `values` at all: whatever it says, nothing has to be done.  `instead` tells what to do in its place.
    """

    values: tuple[object, ...] | None = None
    instead: str = "leave it out"

    def refusal(self, value: object) -> str | None:
        """Why this value is refused; None if it asks for nothing.  Null always does."""
        if value is None or self.values is None or any(_same(value, each) for each in self.values):
            return None
        return f"is not supported here; {self.instead}"


def read_body(body_type: type[Body], data: object, harmless: Mapping[str, Harmless]) -> Body:
    """What is honoured of a decoded body; `invalid_field` with every field that is wrong or cannot be."""
    errors = FieldErrors()
    if isinstance(data, dict):
        for name, field in harmless.items():
            refusal = field.refusal(data.get(name))
            if refusal is not None:
                errors.add((*BODY, name), FieldErrorType.CHOICE, refusal)
        data = {name: value for name, value in data.items() if name not in harmless}
    try:
        body = validate(body_type, data, loc_prefix=BODY, forbid_unknown=True, null_is_absent=True)
    except ReverieError as error:
        errors.found.extend(error.fields)
    errors.raise_if_any()
    return body


def conflict(**fields: str) -> ReverieError:
    """Fields that do not go together with others."""
    wrong = [FieldError((*BODY, name), msg, FieldErrorType.CONFLICT) for name, msg in fields.items()]
    return ReverieError(
        ErrorCode.INVALID_FIELD, "; ".join(f"{n}: {m}" for n, m in fields.items()), fields=wrong
    )


def renamed(error: ReverieError, names: Mapping[str, str]) -> ReverieError:
    """An error about our own fields in the words of the other API."""
    if not error.fields:
        return error
    fields = [
        _replaced(field, loc=(*BODY, *(names.get(str(part), part) for part in field.loc if part != "body")))
        for field in error.fields
    ]
    told = "; ".join(f"{field.loc[-1]}: {field.msg}" for field in fields)
    return ReverieError(
        error.code,
        told,
        fields=fields,
        retry_after=error.retry_after,
        job_id=error.job_id,
        job_ids=error.job_ids,
    )


def _same(left: object, right: object) -> bool:
    """Equal as JSON: true is not 1, but 0.0 is 0."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)
