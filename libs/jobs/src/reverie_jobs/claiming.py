"""Who claims what: a pure rule over the mirror of jobs and a worker's own record.

Order: the lane; inside a lane jobs whose model is in the worker's memory, before those it would have to load one
for as long as none of these has waited for `AFFINITY_S`; then the owner who has least of his work running, among
those the one whose last job started longest ago; inside an owner's jobs their place.  `choose` is the rule in its
plainest form; `WaitingRoom` answers the same question at any depth, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from reverie_protocol.jobs import (
    ComfyParams,
    GenerateParams,
    Job,
    JobState,
    JobType,
    Lane,
    SuperResolutionParams,
    SwitchParams,
    Worker,
    WorkerState,
)

#: Kind, mode or workflow, whether super-resolution, how many pictures.
Need = tuple[JobType, str | None, bool, int]
ClaimKey = tuple[int, int, float, str, float, str]
Takes = Callable[[Job], bool]

#: How long a job may be passed over in its lane for jobs whose model needs no loading, in seconds.
AFFINITY_S: Final = 5.0


class Share(msgspec.Struct, frozen=True):
    """What an owner has had: jobs running now, and when the latest of his jobs started (epoch seconds)."""

    running: int = 0
    last_started: float = 0.0


NOTHING_YET = Share()


def can_serve(job: Job, worker: Worker) -> bool:
    """Whether this worker has what the job needs (its kind, its mode, super-resolution, a model for pictures)."""
    if job.type not in worker.job_types:
        return False
    if isinstance(job.params, GenerateParams):
        if job.params.mode is not None and job.params.mode not in worker.modes:
            return False
        return takes_pictures(job.params, worker) and (worker.superres or not job.params.superres)
    if isinstance(job.params, SuperResolutionParams):
        return worker.superres
    if isinstance(job.params, SwitchParams):
        return job.params.worker == worker.name and job.params.mode in worker.modes
    return True


def takes_pictures(params: GenerateParams, worker: Worker) -> bool:
    """Whether the mode that would run this takes the pictures that it comes with.

    What is not known until the mode is loaded counts as yes: then the worker says it.
    """
    mode = worker.modes.get(params.mode or worker.mode or "")
    if params.initImage is None or mode is None or not mode.family:
        return True
    return mode.init_image and (mode.mask_image or params.maskImage is None)


def need_of(job: Job) -> Need:
    """What a worker must have for this job; jobs of one need are served by the same workers."""
    if isinstance(job.params, GenerateParams):
        pictures = (job.params.initImage, job.params.maskImage)
        return (job.type, job.params.mode, job.params.superres, len(pictures) - pictures.count(None))
    if isinstance(job.params, SwitchParams):
        return (job.type, f"{job.params.worker}/{job.params.mode}", False, 0)
    if isinstance(job.params, ComfyParams):
        return (job.type, job.params.workflowId, False, 0)
    return (job.type, None, job.type is JobType.SR, 0)


def ready_since(job: Job) -> float:
    """Since when a waiting job could have started, in seconds since the epoch."""
    return max(job.enqueued_at, job.not_before or 0.0)


def far_away(job: Job, worker: Worker, *, waited_s: float) -> bool:
    """Whether jobs whose model this worker has in memory go before it: not once `waited_s` is `AFFINITY_S`."""
    if not isinstance(job.params, GenerateParams) or job.params.mode is None or waited_s >= AFFINITY_S:
        return False
    mode = worker.modes.get(job.params.mode)
    return mode is not None and not mode.loaded


def due(job: Job, *, now: float) -> bool:
    """Whether a waiting job may start now: it has its time, and its time has not run out."""
    late = min(job.start_by or now, job.finish_by or now)
    return (job.not_before or 0.0) <= now <= late


def claim_order(job: Job, share: Share) -> ClaimKey:
    """Sort key of waiting jobs; owner and id break ties the same way in every process."""
    return (job.priority, share.running, share.last_started, job.owner, job.position, job.id)


def choose(
    jobs: Iterable[Job],
    worker: Worker,
    *,
    now: float,
    shares: Mapping[str, Share] | None = None,
    paused: frozenset[Lane] = frozenset(),
    takes: Takes | None = None,
) -> Job | None:
    """The job this worker should claim next, None if there is none or it does not take work.

    `takes` is what only the worker itself can say of a job that it could serve by its record.
    """
    if worker.state is not WorkerState.READY:
        return None
    known = shares or {}
    waiting = [job for job in jobs if job.state is JobState.QUEUED and (job.not_before or 0.0) <= now]
    since: dict[tuple[Need, Lane], float] = {}
    for job in waiting:
        alike = (need_of(job), job.priority)
        since[alike] = min(ready_since(job), since.get(alike, now))

    def order(job: Job) -> tuple[Lane, bool, ClaimKey]:
        waited_s = now - since[need_of(job), job.priority]
        far = far_away(job, worker, waited_s=waited_s)
        return (job.priority, far, claim_order(job, known.get(job.owner, NOTHING_YET)))

    return min(
        (
            job
            for job in waiting
            if job.priority not in paused
            and due(job, now=now)
            and can_serve(job, worker)
            and (takes is None or takes(job))
        ),
        key=order,
        default=None,
    )
