"""Every error a client can meet: a stable code, whether trying again can help, and how it travels.

One table decides the HTTP status of a code and whether a WebSocket client may retry.  The *message* of an
error is one sentence for a person; only the *code* is contract.  No exception text ever reaches a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class ErrorCode(StrEnum):
    """Stable, machine-readable error codes.  Codes are added, never renamed."""

    # The frame or body could not be understood.
    INVALID_JSON = "invalid_json"
    INVALID_MESSAGE = "invalid_message"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_FIELD = "invalid_field"
    UNSUPPORTED_FRAME = "unsupported_frame"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    # The request names something that is not there, or not allowed.
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    JOB_NOT_FOUND = "job_not_found"
    MODE_NOT_FOUND = "mode_not_found"
    STYLE_NOT_FOUND = "style_not_found"
    FILE_NOT_FOUND = "file_not_found"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    JOB_FINISHED = "job_finished"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    NOT_IMPLEMENTED = "not_implemented"
    # The request is fine; the platform cannot serve it now.
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    NO_WORKER = "no_worker"
    SUPERRES_DISABLED = "superres_disabled"
    SERVICE_UNAVAILABLE = "service_unavailable"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    WAIT_TIMEOUT = "wait_timeout"
    INTERNAL = "internal"
    # How a job ended, other than well.
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    MODEL_LOAD_FAILED = "model_load_failed"
    UNSAFE_CHECKPOINT = "unsafe_checkpoint"
    UNSUPPORTED_MODEL = "unsupported_model"
    INFERENCE_FAILED = "inference_failed"
    INVALID_OUTPUT = "invalid_output"
    CRASH_LOOP = "crash_loop"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    WORKFLOW_FAILED = "workflow_failed"


class ErrorTraits(msgspec.Struct, frozen=True):
    """How a code travels: its HTTP status and whether the same request may succeed later."""

    status: int
    retryable: bool


ERROR_TRAITS: dict[ErrorCode, ErrorTraits] = {
    ErrorCode.INVALID_JSON: ErrorTraits(400, False),
    ErrorCode.INVALID_MESSAGE: ErrorTraits(422, False),
    ErrorCode.UNKNOWN_TYPE: ErrorTraits(422, False),
    ErrorCode.INVALID_FIELD: ErrorTraits(422, False),
    ErrorCode.UNSUPPORTED_FRAME: ErrorTraits(400, False),
    ErrorCode.PAYLOAD_TOO_LARGE: ErrorTraits(413, False),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ErrorTraits(415, False),
    ErrorCode.NOT_FOUND: ErrorTraits(404, False),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorTraits(405, False),
    ErrorCode.JOB_NOT_FOUND: ErrorTraits(404, False),
    ErrorCode.MODE_NOT_FOUND: ErrorTraits(404, False),
    ErrorCode.STYLE_NOT_FOUND: ErrorTraits(404, False),
    ErrorCode.FILE_NOT_FOUND: ErrorTraits(404, False),
    ErrorCode.UNAUTHENTICATED: ErrorTraits(401, False),
    ErrorCode.FORBIDDEN: ErrorTraits(403, False),
    ErrorCode.IDEMPOTENCY_CONFLICT: ErrorTraits(409, False),
    ErrorCode.JOB_FINISHED: ErrorTraits(409, False),
    ErrorCode.RANGE_NOT_SATISFIABLE: ErrorTraits(416, False),
    ErrorCode.NOT_IMPLEMENTED: ErrorTraits(501, False),
    ErrorCode.QUEUE_FULL: ErrorTraits(429, True),
    ErrorCode.RATE_LIMITED: ErrorTraits(429, True),
    ErrorCode.NO_WORKER: ErrorTraits(503, True),
    ErrorCode.SUPERRES_DISABLED: ErrorTraits(503, False),
    ErrorCode.SERVICE_UNAVAILABLE: ErrorTraits(503, True),
    ErrorCode.STORAGE_UNAVAILABLE: ErrorTraits(503, True),
    ErrorCode.WAIT_TIMEOUT: ErrorTraits(504, True),
    ErrorCode.INTERNAL: ErrorTraits(500, True),
    ErrorCode.CANCELLED: ErrorTraits(409, False),
    ErrorCode.OUT_OF_MEMORY: ErrorTraits(500, True),
    ErrorCode.MODEL_LOAD_FAILED: ErrorTraits(500, False),
    ErrorCode.UNSAFE_CHECKPOINT: ErrorTraits(500, False),
    ErrorCode.UNSUPPORTED_MODEL: ErrorTraits(500, False),
    ErrorCode.INFERENCE_FAILED: ErrorTraits(500, False),
    ErrorCode.INVALID_OUTPUT: ErrorTraits(500, False),
    ErrorCode.CRASH_LOOP: ErrorTraits(500, False),
    ErrorCode.DEADLINE_EXCEEDED: ErrorTraits(504, False),
    ErrorCode.WORKFLOW_FAILED: ErrorTraits(500, False),
}


class FieldError(msgspec.Struct, frozen=True):
    """One wrong field: where it is (`loc`), what is wrong and what is allowed (`msg`), and a stable `type`."""

    loc: tuple[str | int, ...]
    msg: str
    type: str


class ReverieError(Exception):
    """An error meant for a client: code, one sentence, and where it applies the wrong fields.

    `retry_after` is in seconds and becomes the `Retry-After` header of an HTTP answer.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        fields: Sequence[FieldError] = (),
        retry_after: float | None = None,
        job_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = tuple(fields)
        self.retry_after = retry_after
        self.job_id = job_id

    @property
    def status(self) -> int:
        """HTTP status of this error."""
        return ERROR_TRAITS[self.code].status

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return ERROR_TRAITS[self.code].retryable


class CloseCode(msgspec.Struct, frozen=True):
    """A WebSocket close code of ours and whether the client should come back."""

    code: int
    reason: str
    reconnect: bool


CLOSE_GOING_AWAY = CloseCode(1001, "server is draining", True)
CLOSE_TOO_LARGE = CloseCode(1009, "message too large", False)
CLOSE_SLOW_CLIENT = CloseCode(4008, "client reads too slowly", True)
CLOSE_UNAUTHENTICATED = CloseCode(4401, "not authenticated", False)
CLOSE_OVERLOADED = CloseCode(4503, "server is overloaded", True)
CLOSE_CODES = (
    CLOSE_GOING_AWAY,
    CLOSE_TOO_LARGE,
    CLOSE_SLOW_CLIENT,
    CLOSE_UNAUTHENTICATED,
    CLOSE_OVERLOADED,
)
