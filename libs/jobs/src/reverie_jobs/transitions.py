"""The life of a job as data.  What is not in `TRANSITIONS` is refused here, in one place.

Pure: no clock, no bus.  Each function takes a record and returns the next one; `JobStore.apply` writes it by
compare-and-set.  See docs/adr/0002 for why there is no second queue.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import Job, JobError, JobMeta, JobState, Lane, Output

#: A job under which this many workers were lost for good is failed instead of being queued again.
MAX_CRASHES: Final = 3


class Transition(StrEnum):
    """The verbs that move a job."""

    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    REQUEST_CANCEL = "request_cancel"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    CRASH_LOOP = "crash_loop"
    REPRIORITISE = "reprioritise"
    EXPIRE = "expire"


TRANSITIONS: Final[dict[tuple[JobState, Transition], JobState]] = {
    (JobState.QUEUED, Transition.CLAIM): JobState.RUNNING,
    (JobState.QUEUED, Transition.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, Transition.COMPLETE): JobState.COMPLETED,
    (JobState.RUNNING, Transition.FAIL): JobState.FAILED,
    (JobState.RUNNING, Transition.REQUEST_CANCEL): JobState.RUNNING,
    (JobState.RUNNING, Transition.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, Transition.REQUEUE): JobState.QUEUED,
    (JobState.RUNNING, Transition.CRASH_LOOP): JobState.FAILED,
    (JobState.QUEUED, Transition.REPRIORITISE): JobState.QUEUED,
    (JobState.RUNNING, Transition.REPRIORITISE): JobState.RUNNING,
    (JobState.QUEUED, Transition.EXPIRE): JobState.FAILED,
    (JobState.RUNNING, Transition.EXPIRE): JobState.FAILED,
}


class Refused(Exception):
    """The transition is not in the table: the job is in a state that does not allow it."""

    def __init__(self, job: Job, transition: Transition) -> None:
        super().__init__(f"job {job.id} is {job.state}: {transition} is not allowed")
        self.job = job
        self.transition = transition


class Superseded(Exception):
    """The caller's claim is over: another worker or another attempt has the job."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.state}, attempt {job.attempt}: the claim is over")
        self.job = job


class Claim(msgspec.Struct, frozen=True):
    """Proof of ownership: the worker's key and the attempt it was given."""

    job_id: str
    worker: str
    attempt: int


def _move(job: Job, transition: Transition) -> JobState:
    state = TRANSITIONS.get((job.state, transition))
    if state is None:
        raise Refused(job, transition)
    return state


def _require(job: Job, claim: Claim) -> None:
    """A worker may only move what it holds; a job already final or given to another is not its own."""
    if job.state is not JobState.RUNNING or job.worker != claim.worker or job.attempt != claim.attempt:
        raise Superseded(job)


def claim(job: Job, *, worker: str, now: float) -> Job:
    """Queued → running under `worker`, as the next attempt."""
    state = _move(job, Transition.CLAIM)
    return replace(
        job,
        state=state,
        worker=worker,
        attempt=job.attempt + 1,
        started_at=now,
        updated_at=now,
    )


def complete(job: Job, held: Claim, *, outputs: Sequence[Output], meta: JobMeta | None, now: float) -> Job:
    """Running → completed.  A cancel that was acknowledged before wins: then cancelled, outputs kept."""
    _require(job, held)
    if job.cancel:
        return cancel_finished(job, held, outputs=outputs, meta=meta, now=now)
    state = _move(job, Transition.COMPLETE)
    return replace(job, state=state, outputs=tuple(outputs), meta=meta, finished_at=now, updated_at=now)


def fail(
    job: Job,
    held: Claim,
    *,
    error: JobError,
    now: float,
    outputs: Sequence[Output] = (),
    meta: JobMeta | None = None,
) -> Job:
    """Running → failed with its reason, keeping what was made before; one that was to be cancelled is cancelled."""
    _require(job, held)
    if job.cancel:
        return cancel_finished(job, held, outputs=outputs, meta=meta, now=now)
    state = _move(job, Transition.FAIL)
    return replace(
        job,
        state=state,
        error=error,
        outputs=_left_behind(outputs),
        partial=bool(outputs),
        meta=meta,
        finished_at=now,
        updated_at=now,
    )


def request_cancel(job: Job, *, now: float) -> Job | None:
    """Queued → cancelled at once; running → asked to stop.  None if there is nothing left to do (idempotent)."""
    if job.state.terminal or job.cancel:
        return None
    if job.state is JobState.QUEUED:
        return _cancelled(job, outputs=(), meta=None, now=now)
    _move(job, Transition.REQUEST_CANCEL)
    return replace(job, cancel=True, updated_at=now)


def reprioritise(job: Job, *, lane: Lane, position: float | None, now: float) -> Job | None:
    """Move a waiting job to a lane and place, a running one to a lane.  None if it is there already."""
    _move(job, Transition.REPRIORITISE)
    place = job.position if position is None else position
    if (lane, place) == (job.priority, job.position):
        return None
    return replace(job, priority=lane, position=place, updated_at=now)


def overdue(job: Job, *, now: float) -> bool:
    """Whether a job has missed its time: not begun by `start_by`, or not done by `finish_by`."""
    if job.state is JobState.QUEUED and job.start_by is not None and now > job.start_by:
        return True
    return not job.state.terminal and job.finish_by is not None and now > job.finish_by


def expire(job: Job, *, now: float) -> Job | None:
    """Queued or running → failed because its time ran out; None if it has not (or a cancel is on its way)."""
    if not overdue(job, now=now) or job.cancel:
        return None
    limit = "startBy" if job.state is JobState.QUEUED and now > (job.start_by or now) else "finishBy"
    state = _move(job, Transition.EXPIRE)
    error = JobError(ErrorCode.DEADLINE_EXCEEDED, f"the job was not done in time ({limit})")
    return replace(job, state=state, error=error, finished_at=now, updated_at=now)


def cancel_finished(
    job: Job, held: Claim, *, outputs: Sequence[Output], meta: JobMeta | None, now: float
) -> Job:
    """Running → cancelled by its worker, keeping what it had made."""
    _require(job, held)
    return _cancelled(job, outputs=outputs, meta=meta, now=now)


def requeue(
    job: Job,
    held: Claim,
    *,
    crashed: bool,
    now: float,
    gone: bool = True,
    alive: Collection[str] = (),
    lost: bool = False,
) -> Job:
    """Running → queued again, at its old place.

    `crashed` counts against the job: after `MAX_CRASHES` workers it fails as `crash_loop`.  Only what is known
    counts: of the workers lost before, those in `alive` were heard of again and are struck off; the present one may
    just be slow unless it is `gone`, and then does not complete the number.  A job that was to be cancelled becomes
    cancelled instead.  `lost` counts the end of a server that the worker only works with; the worker judges that.
    """
    _require(job, held)
    if job.cancel:
        return _cancelled(job, outputs=(), meta=None, now=now)
    missed = tuple(worker for worker in job.lost_workers if worker not in alive and worker != held.worker)
    certain = len(missed) + (crashed and gone)
    if crashed:
        missed = (*missed, held.worker)
    if crashed and certain >= MAX_CRASHES:
        state = _move(job, Transition.CRASH_LOOP)
        reason = f"the worker was lost {certain} times while it ran this job"
        return replace(
            job,
            state=state,
            crashes=len(missed),
            lost_workers=missed,
            error=JobError(ErrorCode.CRASH_LOOP, reason),
            finished_at=now,
            updated_at=now,
        )
    state = _move(job, Transition.REQUEUE)
    return replace(
        job,
        state=state,
        crashes=len(missed),
        lost_workers=missed,
        losses=job.losses + lost,
        worker=None,
        started_at=None,
        enqueued_at=now,
        updated_at=now,
    )


def _cancelled(job: Job, *, outputs: Sequence[Output], meta: JobMeta | None, now: float) -> Job:
    state = _move(job, Transition.CANCEL)
    return replace(
        job,
        state=state,
        cancel=True,
        outputs=_left_behind(outputs),
        partial=bool(outputs),
        meta=meta,
        error=JobError(ErrorCode.CANCELLED, "the job was cancelled"),
        finished_at=now,
        updated_at=now,
    )


def _left_behind(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """What a job had made that did not come to its end."""
    return tuple(replace(output, partial=True) for output in outputs)
