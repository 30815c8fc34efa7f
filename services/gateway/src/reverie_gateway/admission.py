"""Which submits are taken: pure rules over the mirrors of jobs and workers."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import msgspec

from reverie_jobs.admission import require_result_size, require_servable
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.field_errors import FieldErrorType
from reverie_protocol.init_image import conflicts
from reverie_protocol.jobs import GenerateParams, Job, Worker

#: Largest parameters of one job, in bytes of JSON; a record must fit a NATS message with room to spare.
MAX_PARAMS_BYTES = 256 * 1024
QUEUE_FULL_RETRY_S = 5.0

#: Furthest that a time limit may lie ahead, in seconds: what is further is a mistake, such as milliseconds.
MAX_AHEAD_S = 366 * 86_400.0

_encoder = msgspec.json.Encoder()


def require_room(waiting: int, *, max_queued: int) -> None:
    """Raise `queue_full` where no more jobs may wait."""
    if waiting >= max_queued:
        raise ReverieError(
            ErrorCode.QUEUE_FULL, f"{waiting} jobs are waiting already", retry_after=QUEUE_FULL_RETRY_S
        )


def require_storable(job: Job) -> None:
    """Raise `payload_too_large` where the parameters do not fit a record."""
    size = len(_encoder.encode(job.params))
    if size > MAX_PARAMS_BYTES:
        raise ReverieError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"the parameters take {size} bytes; {MAX_PARAMS_BYTES} are allowed, upload large inputs as files",
        )


def require_makeable(job: Job) -> None:
    """Raise `invalid_field` where the picture is larger than any that is made, or fields do not go together."""
    params = job.params
    if not isinstance(params, GenerateParams):
        return
    if params.size is not None:
        require_result_size(params, params.size)
    wrong = conflicts(params)
    if wrong:
        fields = [FieldError((name,), message, FieldErrorType.CONFLICT) for name, message in wrong.items()]
        told = "; ".join(f"{name}: {message}" for name, message in wrong.items())
        raise ReverieError(ErrorCode.INVALID_FIELD, told, fields=fields)


def require_timely(job: Job, *, now: float) -> None:
    """Raise `invalid_field` where a job could only miss its time limits, or they are no times of this age."""
    earliest = max(now, job.not_before or now)
    limits = (("notBefore", job.not_before, -inf), ("startBy", job.start_by, earliest))
    wrong = [
        FieldError((name,), msg, "out_of_range")
        for name, at, least in (*limits, ("finishBy", job.finish_by, earliest))
        if at is not None and (msg := _untimely(at, now=now, least=least)) is not None
    ]
    if wrong:
        names = ", ".join(str(field.loc[0]) for field in wrong)
        raise ReverieError(ErrorCode.INVALID_FIELD, f"{names}: no job could keep to that", fields=wrong)


def _untimely(at: float, *, now: float, least: float) -> str | None:
    """What is wrong with a limit at `at` that must not lie before `least`; None if nothing is."""
    if at > now + MAX_AHEAD_S:
        return "lies more than a year ahead; times are seconds since the epoch"
    if at < least:
        return "lies in the past" if at < now else "lies before notBefore"
    return None


def require_known(job: Job, workers: Iterable[Worker]) -> None:
    """Refuse what can never run, but let a job wait for a worker that is away or still starting."""
    try:
        require_servable(job, workers)
    except ReverieError as error:
        if error.code is not ErrorCode.NO_WORKER:
            raise
