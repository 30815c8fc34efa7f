"""What keeps a waiting job from starting, other than the jobs before it: said to its owner in a sentence."""

from __future__ import annotations

from reverie_jobs.admission import require_servable
from reverie_jobs.claiming import can_serve
from reverie_jobs.controls import ControlMirror, closed_lanes
from reverie_jobs.mirror import WorkerMirror
from reverie_protocol.controls import Gate
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import Job, JobState, WorkerState
from reverie_runtime.clock import Clock


class Obstacles:
    """Looks for obstacles in the mirrors of workers and gates."""

    def __init__(self, workers: WorkerMirror, controls: ControlMirror, *, clock: Clock) -> None:
        self._workers = workers
        self._controls = controls
        self._clock = clock

    def of(self, job: Job) -> str | None:
        """The first obstacle; None where there is none, or the job does not wait."""
        if job.state is not JobState.QUEUED:
            return None
        if job.not_before is not None and job.not_before > self._clock.time():
            return "its notBefore has not come yet"
        return self._gate(job) or self._lack(job)

    def _gate(self, job: Job) -> str | None:
        control, lane = self._controls.control, job.priority.name.lower()
        if control.queue.paused:
            return "the queue is paused"
        return f"lane {lane} is paused" if control.lanes.get(lane, Gate()).paused else None

    def _lack(self, job: Job) -> str | None:
        try:
            require_servable(job, self._workers)
        except ReverieError as error:
            return error.message
        ready = [
            worker.name
            for worker in self._workers
            if worker.state is WorkerState.READY and can_serve(job, worker)
        ]
        if not ready:
            return "no worker that could do it is ready"
        control = self._controls.control
        if all(job.priority in closed_lanes(control, worker=name) for name in ready):
            return "the workers that could do it are paused or draining"
        return None
