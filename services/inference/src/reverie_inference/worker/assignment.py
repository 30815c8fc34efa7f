"""One claimed job while it is this worker's."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from reverie_inference.engine.events import Failed, Finished, Left, Switched
from reverie_inference.worker.progress import JobProgress
from reverie_jobs.transitions import Claim
from reverie_protocol.jobs import Job, JobState, Phase

Outcome = Finished | Failed | Left | Switched


class StopReason(StrEnum):
    """Why a job is to stop before its end."""

    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    DRAINED = "drained"
    LOST = "lost"


class Assignment:
    """A job in the engine.  `changed` is set whenever there is something new to tell watchers."""

    def __init__(self, job: Job, worker: str) -> None:
        self.job = job
        self.claim = Claim(job.id, worker, job.attempt)
        self.run_id = f"{job.id}.{job.attempt}"
        self.progress = JobProgress(job.id, job.attempt)
        self.progress.enter(Phase.LOADING)
        self.changed = asyncio.Event()
        self.changed.set()
        self.outcome: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self.stop_reason: StopReason | None = None
        #: The engine has it, and will report how it ends.
        self.admitted = False
        #: Encoded frame that waits to be published, the latest only.
        self.preview_frame: bytes | None = None
        self.preview_asked_at = float("-inf")
        self.preview_pending = False

    def held_in(self, job: Job | None) -> bool:
        """Whether a record says that the job is still this attempt of ours."""
        return (
            job is not None
            and job.state is JobState.RUNNING
            and job.worker == self.claim.worker
            and job.attempt == self.claim.attempt
        )

    def conclude(self, outcome: Outcome | None) -> None:
        """The engine is done with it, or (None) is waited for no longer; later outcomes do not count."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)
