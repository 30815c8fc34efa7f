"""A job as HTTP shows it: the same story that the WebSocket tells, at the moment of the question."""

from __future__ import annotations

from reverie_gateway.hub import Hub
from reverie_gateway.obstacles import Obstacles
from reverie_gateway.standings import Standings
from reverie_jobs.store import Stored
from reverie_protocol.http_bodies import JobTimestamps, JobView
from reverie_protocol.jobs import Job, JobState


class Lens:
    """Shows job records together with what only this moment knows: progress and place in the queue."""

    def __init__(self, hub: Hub, standings: Standings, obstacles: Obstacles) -> None:
        self._hub = hub
        self._standings = standings
        self._obstacles = obstacles

    def show(self, stored: Stored) -> JobView:
        """What the owner of a job is shown."""
        job = stored.job
        now = self._hub.progress_of(job)
        return JobView(
            job_id=job.id,
            type=job.type,
            state=job.state,
            priority=job.priority,
            position=self._standings.place_of(job),
            waiting_for=self._obstacles.of(job),
            attempt=job.attempt,
            progress=1.0 if job.state is JobState.COMPLETED else now.progress if now else 0.0,
            phase=now.phase if now else None,
            step=now.step if now else 0,
            steps=now.steps if now else 0,
            node=now.node if now else "",
            comfy=now.comfy if now else None,
            cancelling=job.cancel and not job.state.terminal,
            retry_of=job.retry_of,
            outputs=job.outputs,
            partial=job.partial,
            error=job.error,
            meta=job.meta,
            params=job.params,
            timestamps=_timestamps(job),
            seq=stored.revision,
        )


def _timestamps(job: Job) -> JobTimestamps:
    return JobTimestamps(
        created_at=job.created_at,
        enqueued_at=job.enqueued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        updated_at=job.updated_at,
    )
