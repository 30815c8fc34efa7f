"""Errors as clients of OpenAI's API read them.

Its Python package chooses the exception by the HTTP status alone, but takes the exception's text, `type`, `param`
and `code` from an object `error`; without it the text is "Error code: 422" and no more.  In a stream only such an
object is an error at all.  It repeats by itself what failed with 409, 429 or 5xx, which would make every job anew;
`X-Should-Retry` tells it when not to.
"""

from __future__ import annotations

from typing import Final

from reverie_protocol.errors import FieldError, ReverieError
from reverie_protocol.http_bodies import OpenaiError

_PATHS: Final = ("/v1/images/", "/v1/models")
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def is_openai(path: str) -> bool:
    """Whether a path belongs to OpenAI's API."""
    return path.startswith(_PATHS)


def openai_error(error: ReverieError, status: int) -> OpenaiError:
    """The object `error`."""
    places = [_place(field) for field in error.fields]
    told = [f"{place}: {field.msg}" for place, field in zip(places, error.fields, strict=True)]
    return OpenaiError(
        message="; ".join(told) or error.message,
        type=_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
        param=places[0] if places else None,
        code=error.code,
    )


def _place(field: FieldError) -> str:
    return ".".join(str(part) for part in field.loc if part != "body")


def retry_hint(error: ReverieError) -> dict[str, str]:
    """Nothing is repeated by a client's own decision once there are jobs."""
    again = error.retryable and not error.job_id and not error.job_ids
    return {"X-Should-Retry": "true" if again else "false"}
