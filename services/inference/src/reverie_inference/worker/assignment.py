"""One claimed job while the engine has it."""

from __future__ import annotations

import asyncio

from reverie_inference.engine.events import Failed, Finished, Left, Switched
from reverie_inference.worker.progress import JobProgress
from reverie_protocol.jobs import Job, Phase
from reverie_worker.assignment import Assignment

Outcome = Finished | Failed | Left | Switched


class EngineAssignment(Assignment):
    """A job in the engine."""

    progress: JobProgress

    def __init__(self, job: Job, worker: str) -> None:
        super().__init__(job, worker)
        self.progress = JobProgress(job.id, job.attempt)
        self.progress.enter(Phase.LOADING)
        self.outcome: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        #: The lane it is in now; the record may be moved while it runs.
        self.lane = job.priority
        #: The engine has it, and will report how it ends.
        self.admitted = False
        self.preview_asked_at = float("-inf")
        self.preview_pending = False

    def conclude(self, outcome: Outcome | None) -> None:
        """The engine is done with it, or (None) is waited for no longer; later outcomes do not count."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)
