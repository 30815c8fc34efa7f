"""Which submits are taken: pure rules over the mirrors of jobs and workers."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from reverie_jobs.admission import require_servable
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import Job, JobType, Worker

#: Largest parameters of one job, in bytes of JSON; a record must fit a NATS message with room to spare.
MAX_PARAMS_BYTES = 256 * 1024
QUEUE_FULL_RETRY_S = 5.0
#: Job types that the platform itself always serves sooner or later, also before its first worker has started.
INTRINSIC_TYPES = frozenset({JobType.GENERATE})

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


def require_timely(job: Job, *, now: float) -> None:
    """Raise `invalid_field` where a job could only miss its time limits."""
    limits = [
        (name, at) for name, at in (("startBy", job.start_by), ("finishBy", job.finish_by)) if at is not None
    ]
    earliest = max(now, job.not_before or now)
    late = [FieldError((name,), _too_early(now, at), "out_of_range") for name, at in limits if at < earliest]
    if late:
        names = ", ".join(str(field.loc[0]) for field in late)
        raise ReverieError(ErrorCode.INVALID_FIELD, f"{names}: no job could keep to that", fields=late)


def _too_early(now: float, at: float) -> str:
    return "lies in the past" if at < now else "lies before notBefore"


def require_known(job: Job, workers: Iterable[Worker], *, seen_types: Collection[JobType]) -> None:
    """Refuse what can never run, but let a job wait for a worker that is away or still starting."""
    try:
        require_servable(job, workers)
    except ReverieError as error:
        waits = job.type in INTRINSIC_TYPES or job.type in seen_types
        if error.code is not ErrorCode.NO_WORKER or not waits:
            raise
