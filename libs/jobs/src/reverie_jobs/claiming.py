"""Who claims what: a pure rule over the mirror of jobs and a worker's own record.

Order: the lane; inside a lane the owner who has least of his work running, and among those the one whose last job
started longest ago; inside an owner's jobs their place.  `choose` is the rule in its plainest form; `WaitingRoom`
answers the same question at any depth, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from reverie_protocol.jobs import GenerateParams, Job, JobState, Lane, SwitchParams, Worker, WorkerState


class Share(msgspec.Struct, frozen=True):
    """What an owner has had: jobs running now, and when the latest of his jobs started (epoch seconds)."""

    running: int = 0
    last_started: float = 0.0


NOTHING_YET = Share()


def can_serve(job: Job, worker: Worker) -> bool:
    """Whether this worker has what the job needs (its kind, its mode, super-resolution)."""
    if job.type not in worker.job_types:
        return False
    if isinstance(job.params, GenerateParams):
        if job.params.mode is not None and job.params.mode not in worker.modes:
            return False
        return worker.superres or not job.params.superres
    if isinstance(job.params, SwitchParams):
        return job.params.worker == worker.name and job.params.mode in worker.modes
    return True


def due(job: Job, *, now: float) -> bool:
    """Whether a waiting job may start now: it has its time, and its time has not run out."""
    late = min(job.start_by or now, job.finish_by or now)
    return (job.not_before or 0.0) <= now <= late


def claim_order(job: Job, share: Share) -> tuple[int, int, float, str, float, str]:
    """Sort key of waiting jobs; owner and id break ties the same way in every process."""
    return (job.priority, share.running, share.last_started, job.owner, job.position, job.id)


def choose(
    jobs: Iterable[Job],
    worker: Worker,
    *,
    now: float,
    shares: Mapping[str, Share] | None = None,
    paused: frozenset[Lane] = frozenset(),
) -> Job | None:
    """The job this worker should claim next, None if there is none or it does not take work."""
    if worker.state is not WorkerState.READY:
        return None
    known = shares or {}
    return min(
        (
            job
            for job in jobs
            if job.state is JobState.QUEUED
            and job.priority not in paused
            and due(job, now=now)
            and can_serve(job, worker)
        ),
        key=lambda job: claim_order(job, known.get(job.owner, NOTHING_YET)),
        default=None,
    )
