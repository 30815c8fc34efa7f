"""Errors as HTTP answers: one JSON shape, one table of statuses, never the text of an exception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from litestar import Response
from litestar.exceptions import HTTPException
from msgspec.structs import replace

from reverie_gateway.identity import HttpRequest
from reverie_gateway.openai_errors import is_openai, openai_error, retry_hint
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode, FieldError, ReverieError
from reverie_protocol.http_bodies import ErrorBody

log = structlog.get_logger(__name__)

_PLACES = ("body", "query", "header", "path")
#: HTTP errors that the framework itself raises, by status.
_FRAMEWORK_ERRORS: dict[int, tuple[ErrorCode, str]] = {
    400: (ErrorCode.INVALID_MESSAGE, "the request is malformed"),
    404: (ErrorCode.NOT_FOUND, "there is nothing at this path"),
    405: (ErrorCode.METHOD_NOT_ALLOWED, "this path does not take that method"),
    413: (ErrorCode.PAYLOAD_TOO_LARGE, "the request body is too large"),
    415: (ErrorCode.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"),
}


def request_id_of(request: HttpRequest) -> str:
    """The id that this request's answer carries."""
    return str(request.scope["state"].get("request_id", ""))


def job_url(job_id: str) -> str:
    """Where a job can be polled."""
    return f"/v1/jobs/{job_id}"


def problem(
    error: ReverieError,
    request_id: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = "",
) -> Response[ErrorBody]:
    """The HTTP answer to `error`, with what clients of the dialect that `path` belongs to look for."""
    status = status or error.status
    fields: Sequence[FieldError] = error.fields
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and not fields:
        fields = [FieldError(("body",), error.message, error.code)]
    body = ErrorBody(
        detail=_located(fields) if status == HTTPStatus.UNPROCESSABLE_ENTITY else error.message,
        code=error.code,
        request_id=request_id,
        job_id=error.job_id,
        job_ids=error.job_ids,
        node_errors=error.node_errors,
        url=job_url(error.job_id) if error.job_id else None,
        error=openai_error(error, status) if is_openai(path) else None,
    )
    extra = dict(headers or {}) | (retry_hint(error) if is_openai(path) else {})
    if error.retry_after is not None:
        extra["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.job_id:
        extra["X-Job-Id"] = error.job_id
    extra["Cache-Control"] = "no-store"
    return Response(body, status_code=status, headers=extra, media_type="application/json")


def _located(fields: Sequence[FieldError]) -> tuple[FieldError, ...]:
    """Say of fields that were refused after parsing that they stood in the body."""
    return tuple(
        field if field.loc[:1] and field.loc[0] in _PLACES else replace(field, loc=("body", *field.loc))
        for field in fields
    )


def on_reverie_error(request: HttpRequest, error: ReverieError) -> Response[ErrorBody]:
    """Answer an error that was meant for the client."""
    return problem(error, request_id_of(request), path=request.scope["path"])


def on_http_exception(request: HttpRequest, error: HTTPException) -> Response[ErrorBody]:
    """Answer what the framework refused, in our own words."""
    code, message = _FRAMEWORK_ERRORS.get(error.status_code, (ErrorCode.INTERNAL, "the request failed"))
    if error.status_code >= 500:
        return on_exception(request, error)
    headers = {key: value for key, value in (error.headers or {}).items() if key.lower() == "allow"}
    status = error.status_code if error.status_code in _FRAMEWORK_ERRORS else ERROR_TRAITS[code].status
    error_of_ours = ReverieError(code, message)
    return problem(
        error_of_ours, request_id_of(request), status=status, headers=headers, path=request.scope["path"]
    )


def on_exception(request: HttpRequest, error: Exception) -> Response[ErrorBody]:
    """Answer a bug of ours: the log has the trace, the client a request id to name."""
    log.error("request failed", path=request.scope["path"], exc_info=error)
    return problem(
        ReverieError(ErrorCode.INTERNAL, "an internal error; the request id names it in the log"),
        request_id_of(request),
        path=request.scope["path"],
    )
