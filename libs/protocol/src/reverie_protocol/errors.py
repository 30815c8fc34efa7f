"""Every error a client can meet: a stable code, whether trying again can help, and how it travels.

One table decides the HTTP status of a code and whether a WebSocket client may retry.  The *message* of an
error is one sentence for a person; only the *code* is contract.  No exception text ever reaches a client.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from reverie_protocol.jobs import ComfyNodeError


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
    INVALID_UPLOAD = "invalid_upload"
    REQUEST_TIMEOUT = "request_timeout"
    INVALID_MODES = "invalid_modes"
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
    JOB_NOT_RETRYABLE = "job_not_retryable"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    ALREADY_DREAMING = "already_dreaming"
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_OVER = "session_over"
    NOT_IMPLEMENTED = "not_implemented"
    # The request is fine; the platform cannot serve it now.
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    NO_WORKER = "no_worker"
    SUPERRES_DISABLED = "superres_disabled"
    SERVICE_UNAVAILABLE = "service_unavailable"
    DRAINING = "draining"
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
    # ComfyUI.
    WORKFLOW_NOT_FOUND = "workflow_not_found"
    WORKFLOW_INVALID = "workflow_invalid"
    COMFY_UNREACHABLE = "comfy_unreachable"


class ErrorTraits(msgspec.Struct, frozen=True):
    """How a code travels: its HTTP status, whether the same request may succeed later, and what it means."""

    status: int
    retryable: bool
    meaning: str


ERROR_TRAITS: dict[ErrorCode, ErrorTraits] = {
    ErrorCode.INVALID_JSON: ErrorTraits(400, False, "The text is not JSON, or not UTF-8."),
    ErrorCode.INVALID_MESSAGE: ErrorTraits(
        422, False, "The JSON is no object, repeats a key, or is nested too deep."
    ),
    ErrorCode.UNKNOWN_TYPE: ErrorTraits(
        422, False, "The message's `type` is missing, no string, or not one we know."
    ),
    ErrorCode.INVALID_FIELD: ErrorTraits(422, False, "One or more fields are wrong; each is named."),
    ErrorCode.UNSUPPORTED_FRAME: ErrorTraits(400, False, "Clients send text frames only."),
    ErrorCode.PAYLOAD_TOO_LARGE: ErrorTraits(
        413, False, "The body or frame is larger than the server accepts."
    ),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ErrorTraits(
        415, False, "The body has another media type than the endpoint takes, or the file is no picture."
    ),
    ErrorCode.INVALID_UPLOAD: ErrorTraits(
        400, False, "The uploaded file is empty, or the form around it, or one of its fields, is wrong."
    ),
    ErrorCode.REQUEST_TIMEOUT: ErrorTraits(
        408, True, "The request did not come in time, or its body too slowly; the connection is closed."
    ),
    ErrorCode.INVALID_MODES: ErrorTraits(
        400, False, "A worker's modes.yml is broken; what it offered before stays."
    ),
    ErrorCode.NOT_FOUND: ErrorTraits(404, False, "There is no such path or key."),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorTraits(405, False, "The path exists, but not with this HTTP method."),
    ErrorCode.JOB_NOT_FOUND: ErrorTraits(404, False, "There is no such job, or it is not yours."),
    ErrorCode.MODE_NOT_FOUND: ErrorTraits(
        404, False, "There is no such mode; the message names those there are."
    ),
    ErrorCode.STYLE_NOT_FOUND: ErrorTraits(
        404, False, "There is no such style; the message names those there are."
    ),
    ErrorCode.FILE_NOT_FOUND: ErrorTraits(404, False, "The file reference is unknown or has expired."),
    ErrorCode.UNAUTHENTICATED: ErrorTraits(401, False, "Credentials are missing, wrong or expired."),
    ErrorCode.FORBIDDEN: ErrorTraits(403, False, "You are known, but may not do this."),
    ErrorCode.IDEMPOTENCY_CONFLICT: ErrorTraits(
        409, False, "The idempotency key was used before with another request."
    ),
    ErrorCode.JOB_FINISHED: ErrorTraits(409, False, "The job is already final and cannot be changed."),
    ErrorCode.JOB_NOT_RETRYABLE: ErrorTraits(
        409, False, "Only a failed or cancelled job is retried; this one runs, waits, or is complete."
    ),
    ErrorCode.RANGE_NOT_SATISFIABLE: ErrorTraits(
        416, False, "The requested byte range lies outside the object."
    ),
    ErrorCode.ALREADY_DREAMING: ErrorTraits(
        400, False, "You have as many dream sessions under way as you may; stop one first."
    ),
    ErrorCode.SESSION_NOT_FOUND: ErrorTraits(
        404, False, "There is no such dream session, or it is not yours."
    ),
    ErrorCode.SESSION_OVER: ErrorTraits(409, False, "The dream session has ended and cannot be steered."),
    ErrorCode.NOT_IMPLEMENTED: ErrorTraits(
        501, False, "The endpoint exists for compatibility and does nothing."
    ),
    ErrorCode.QUEUE_FULL: ErrorTraits(429, True, "Too many jobs wait; `Retry-After` says when to try again."),
    ErrorCode.RATE_LIMITED: ErrorTraits(429, True, "You sent too much in too short a time."),
    ErrorCode.NO_WORKER: ErrorTraits(503, True, "No worker that could do this job is running."),
    ErrorCode.SUPERRES_DISABLED: ErrorTraits(
        503, False, "No worker offers super-resolution; nothing was started."
    ),
    ErrorCode.DRAINING: ErrorTraits(
        503, True, "The queue, or this lane, is being drained: it takes no new jobs."
    ),
    ErrorCode.SERVICE_UNAVAILABLE: ErrorTraits(
        503, True, "The service behind this request, or the message bus, cannot be reached."
    ),
    ErrorCode.STORAGE_UNAVAILABLE: ErrorTraits(503, True, "Outputs cannot be stored or read at the moment."),
    ErrorCode.WAIT_TIMEOUT: ErrorTraits(
        504, True, "The request's wait ran out; the job goes on, and the answer says where."
    ),
    ErrorCode.INTERNAL: ErrorTraits(500, True, "A fault of ours; the request id finds it in the logs."),
    ErrorCode.CANCELLED: ErrorTraits(409, False, "The job was cancelled."),
    ErrorCode.OUT_OF_MEMORY: ErrorTraits(500, True, "The worker ran out of memory; a smaller size may do."),
    ErrorCode.MODEL_LOAD_FAILED: ErrorTraits(503, False, "The model's files could not be loaded."),
    ErrorCode.UNSAFE_CHECKPOINT: ErrorTraits(
        500, False, "The checkpoint is a pickle, which could run code; only safetensors are loaded."
    ),
    ErrorCode.UNSUPPORTED_MODEL: ErrorTraits(
        500, False, "The model is of a kind that the worker cannot run."
    ),
    ErrorCode.INFERENCE_FAILED: ErrorTraits(500, False, "The model failed while it ran."),
    ErrorCode.INVALID_OUTPUT: ErrorTraits(
        500, False, "The model's output is no picture (not finite, or blank)."
    ),
    ErrorCode.CRASH_LOOP: ErrorTraits(
        500, False, "Three workers were lost under this job; it is not tried again."
    ),
    ErrorCode.DEADLINE_EXCEEDED: ErrorTraits(504, False, "The job did not start or finish in its time."),
    ErrorCode.WORKFLOW_FAILED: ErrorTraits(500, False, "A node of the workflow failed in ComfyUI."),
    ErrorCode.WORKFLOW_NOT_FOUND: ErrorTraits(
        400, False, "There is no such workflow; the message names those there are."
    ),
    ErrorCode.WORKFLOW_INVALID: ErrorTraits(
        422, False, "The workflow cannot run as asked; each node and field is named."
    ),
    ErrorCode.COMFY_UNREACHABLE: ErrorTraits(
        502, True, "No ComfyUI instance that could do this can be reached now."
    ),
}


#: An error code as text: a reader must bear codes that are younger than itself.
ErrorCodeText = Annotated[str, Meta(description="an error code", extra={"open_enum": "ErrorCode"})]


class FieldError(msgspec.Struct, frozen=True):
    """One wrong field: where it is (`loc`), what is wrong and what is allowed (`msg`), and a stable `type`."""

    loc: tuple[str | int, ...]
    msg: str
    type: Annotated[str, Meta(description="kind of error", extra={"open_enum": "FieldErrorType"})]


class ReverieError(Exception):
    """An error meant for a client: code, one sentence, and where it applies the wrong fields and nodes.

    `retry_after` is in seconds and becomes the `Retry-After` header of an HTTP answer.  `job_ids` are all jobs of a
    request that made several.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        fields: Sequence[FieldError] = (),
        retry_after: float | None = None,
        job_id: str | None = None,
        job_ids: Sequence[str] = (),
        node_errors: Sequence[ComfyNodeError] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = tuple(fields)
        self.retry_after = retry_after
        self.job_id = job_id
        self.job_ids = tuple(job_ids)
        self.node_errors = tuple(node_errors)

    @property
    def status(self) -> int:
        """HTTP status of this error."""
        return ERROR_TRAITS[self.code].status

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return ERROR_TRAITS[self.code].retryable


def mode_not_found(name: str, known: Iterable[str]) -> ReverieError:
    """The error for a mode that nobody has; it names those that there are."""
    there_is = ", ".join(sorted(known)) or "none"
    return ReverieError(ErrorCode.MODE_NOT_FOUND, f"there is no mode {name!r}; there is {there_is}")


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
