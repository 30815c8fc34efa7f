"""The client's own name for a request, by which a repetition finds the first one's job."""

from __future__ import annotations

from msgspec.structs import replace

from reverie_gateway.identity import HttpRequest
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError

MAX_KEY_CHARS = 200
_HEADER = "Idempotency-Key"


def idempotency_key_of(request: HttpRequest) -> str | None:
    """The Idempotency-Key header, None if there is none; `invalid_field` if it is unusable."""
    key: str | None = request.headers.get(_HEADER)
    if key is None or 1 <= len(key) <= MAX_KEY_CHARS:
        return key
    raise _wrong(f"must be 1 to {MAX_KEY_CHARS} characters", "out_of_range")


def with_header_key(submit: JobSubmit, request: HttpRequest) -> JobSubmit:
    """The submit under the header's key; `invalid_field` if the body names another one."""
    key = idempotency_key_of(request)
    if key is None:
        return submit
    if submit.idempotency_key not in (None, key):
        raise _wrong("differs from idempotencyKey in the body; send one of them", "conflict")
    return replace(submit, idempotency_key=key)


def _wrong(msg: str, kind: str) -> ReverieError:
    field = FieldError(("header", _HEADER), msg, kind)
    return ReverieError(ErrorCode.INVALID_FIELD, f"{_HEADER}: {msg}", fields=[field])
