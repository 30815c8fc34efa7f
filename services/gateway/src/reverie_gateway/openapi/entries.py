"""What an entry of the table of endpoints is made of, and parts that many of them share."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from reverie_protocol.errors import ErrorCode

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
JOB_ID: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}

#: What any endpoint that asks the job store may answer.
STORE: Final = (ErrorCode.SERVICE_UNAVAILABLE,)
BODY: Final = (
    ErrorCode.INVALID_JSON,
    ErrorCode.INVALID_FIELD,
    ErrorCode.INVALID_MESSAGE,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.FORBIDDEN,
)
UPLOAD: Final = (
    ErrorCode.INVALID_UPLOAD,
    ErrorCode.INVALID_FIELD,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.RATE_LIMITED,
    ErrorCode.FORBIDDEN,
    ErrorCode.STORAGE_UNAVAILABLE,
)


def _text() -> Schema:
    return TEXT


class Header(msgspec.Struct, frozen=True):
    """A header of a request or an answer."""

    name: str
    description: str
    schema: Schema = msgspec.field(default_factory=_text)


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of the path, the query or the headers."""

    name: str
    place: str
    description: str
    schema: Schema = msgspec.field(default_factory=_text)


class Answer(msgspec.Struct, frozen=True):
    """A successful answer; `content` maps media types to the name of a component or to a schema."""

    status: int
    description: str
    content: dict[str, str | Schema] = {}
    headers: tuple[Header, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path; `body` is JSON, `form` the schema of a multipart/form-data body, or one may choose.

    With `token_optional` some of what lies below the path is open to everybody.
    """

    method: str
    path: str
    operation_id: str
    tag: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: str | None = None
    form: Schema | None = None
    token_optional: bool = False
    answers: tuple[Answer, ...]
    errors: tuple[ErrorCode, ...] = ()


IDEMPOTENCY: Final = Parameter(
    "Idempotency-Key",
    "header",
    "your own name for this request: a repetition gets the first one's job instead of a second one; the same key "
    "with another body is a 409",
    {"type": "string", "minLength": 1, "maxLength": 200},
)
JOB: Final = Parameter("job_id", "path", "the job", JOB_ID)
