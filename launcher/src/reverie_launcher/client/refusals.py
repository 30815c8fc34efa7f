"""Errors of the server as a sentence for a person, with an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from reverie_launcher.exits import ExitCode, Failure
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode, FieldError
from reverie_protocol.http_bodies import ErrorBody

#: What a person can do about a code; for the others the server's message says enough.
ADVICE: dict[ErrorCode, str] = {
    ErrorCode.QUEUE_FULL: "Try again when some of the waiting jobs are done (reverie jobs).",
    ErrorCode.RATE_LIMITED: "Try again in a moment.",
    ErrorCode.NO_WORKER: "See which workers there are with reverie status.",
    ErrorCode.OUT_OF_MEMORY: "Try a smaller --size.",
    ErrorCode.SERVICE_UNAVAILABLE: "See what is missing with reverie status.",
    ErrorCode.STORAGE_UNAVAILABLE: "Look at the disk of the server's data directory.",
    ErrorCode.MODEL_LOAD_FAILED: "The worker's log has the details; try another --mode.",
    ErrorCode.INTERNAL: "The server's log has the details.",
    ErrorCode.CRASH_LOOP: "The worker's log has the details; a smaller --size may help.",
    ErrorCode.UNAUTHENTICATED: "Set REVERIE_TOKEN or give --token-file; reverie token makes one.",
    ErrorCode.JOB_NOT_FOUND: "See which jobs there are with reverie jobs.",
    ErrorCode.COMFY_UNREACHABLE: "See which ComfyUI servers there are with reverie comfy instances.",
}
#: Options of `reverie generate` by the name that the API has for them.
OPTIONS = {
    "num_inference_steps": "--steps",
    "guidance_scale": "--guidance",
    "negative_prompt": "--negative",
    "size": "--size",
    "seed": "--seed",
    "scheduler": "--scheduler",
    "mode": "--mode",
    "priority": "--priority",
    "superres": "--superres",
}
_EXIT_CODES: dict[ErrorCode, ExitCode] = {
    ErrorCode.CANCELLED: ExitCode.CANCELLED,
    ErrorCode.WAIT_TIMEOUT: ExitCode.TIMEOUT,
    ErrorCode.DEADLINE_EXCEEDED: ExitCode.TIMEOUT,
    ErrorCode.SERVICE_UNAVAILABLE: ExitCode.UNREACHABLE,
    ErrorCode.IDEMPOTENCY_CONFLICT: ExitCode.FAILED,
    ErrorCode.QUEUE_FULL: ExitCode.FAILED,
    ErrorCode.RATE_LIMITED: ExitCode.FAILED,
}


def failure(
    code: str, message: str, *, fields: Sequence[FieldError] = (), job_id: str | None = None
) -> Failure:
    """The Failure for an error code of the server; codes that are younger than this client end with 1."""
    try:
        known = ErrorCode(code)
    except ValueError:
        return Failure(ExitCode.FAILED, sentence(message), code=code, job_id=job_id)
    exit_code = _EXIT_CODES.get(known)
    if exit_code is None:
        exit_code = ExitCode.USAGE if ERROR_TRAITS[known].status < 500 else ExitCode.FAILED
    text = "; ".join(map(_describe, fields)) or message
    return Failure(exit_code, sentence(text), advice=ADVICE.get(known, ""), code=code, job_id=job_id)


def http_failure(status: int, body: bytes) -> Failure:
    """The Failure for an HTTP answer of 400 or more."""
    try:
        error = msgspec.json.decode(body, type=ErrorBody)
    except msgspec.DecodeError:
        return not_reverie(f"the server answered {status}")
    if isinstance(error.detail, str):
        return failure(error.code, error.detail, job_id=error.job_id)
    return failure(error.code, "the request is invalid", fields=error.detail, job_id=error.job_id)


def not_reverie(what: str) -> Failure:
    """Something listens there, but it is no Reverie server."""
    return Failure(
        ExitCode.UNREACHABLE,
        sentence(f"{what}, as no Reverie server would"),
        advice="Check --url.",
        code="unreachable",
    )


def unreachable(url: str, error: Any) -> Failure:
    """Nothing answers at the address."""
    reason = getattr(error, "strerror", None)
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        reason = "nothing listens there"
    return Failure(
        ExitCode.UNREACHABLE,
        f"No Reverie server answers at {url}{f' ({reason})' if reason else ''}.",
        advice="Start one with reverie up, or name another with --url.",
        code="unreachable",
    )


def sentence(text: str) -> str:
    """Text with a capital at its begin and a stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".")


def _describe(field: FieldError) -> str:
    names = [str(part) for part in field.loc if part not in ("body", "params")]
    names = [OPTIONS.get(name, name) for name in names]
    return f"{'.'.join(names)} {field.msg}" if names else field.msg
