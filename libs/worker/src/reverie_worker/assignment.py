"""One claimed job while it is this worker's."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Protocol

from reverie_jobs.transitions import Claim
from reverie_protocol.jobs import Job, JobState, Progress


class StopReason(StrEnum):
    """Why a job is to stop before its end."""

    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    DRAINED = "drained"
    LOST = "lost"


class Told(Protocol):
    """How far an attempt is."""

    latest: Progress


class Assignment:
    """One attempt of a job.  `changed` is set whenever there is something new to tell watchers."""

    #: How far it is; the service's own fold of what happens.
    progress: Told

    def __init__(self, job: Job, worker: str) -> None:
        self.job = job
        self.claim = Claim(job.id, worker, job.attempt)
        self.run_id = f"{job.id}.{job.attempt}"
        self.changed = asyncio.Event()
        self.changed.set()
        self.stop_reason: StopReason | None = None
        #: Encoded frame that waits to be published, the latest only.
        self.preview_frame: bytes | None = None

    def held_in(self, job: Job | None) -> bool:
        """Whether a record says that the job is still this attempt of ours."""
        return (
            job is not None
            and job.state is JobState.RUNNING
            and job.worker == self.claim.worker
            and job.attempt == self.claim.attempt
        )
