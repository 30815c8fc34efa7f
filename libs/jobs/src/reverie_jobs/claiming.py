"""Who claims what: a pure function over the mirror of jobs and a worker's own record."""

from __future__ import annotations

from collections.abc import Iterable

from reverie_protocol.jobs import GenerateParams, Job, JobState, Worker, WorkerState


def can_serve(job: Job, worker: Worker) -> bool:
    """Whether this worker has what the job needs (its kind, its mode, super-resolution)."""
    if job.type not in worker.job_types:
        return False
    if isinstance(job.params, GenerateParams):
        if job.params.mode is not None and job.params.mode not in worker.modes:
            return False
        return worker.superres or not job.params.superres
    return True


def claimable(job: Job, worker: Worker, *, now: float) -> bool:
    """Whether this worker may claim the job now; `now` is in seconds since the epoch."""
    if job.state is not JobState.QUEUED or job.cancel:
        return False
    if job.not_before is not None and job.not_before > now:
        return False
    return can_serve(job, worker)


def claim_order(job: Job) -> tuple[int, float, str]:
    """Sort key of waiting jobs: lane, then place in the lane; the id breaks ties the same way everywhere."""
    return (job.priority, job.position, job.id)


def choose(jobs: Iterable[Job], worker: Worker, *, now: float) -> Job | None:
    """The job this worker should claim next, None if there is none or it does not take work."""
    if worker.state is not WorkerState.READY:
        return None
    return min((job for job in jobs if claimable(job, worker, now=now)), key=claim_order, default=None)
