"""Notices that revisions were missed, whatever made it: the check on everything below."""

from __future__ import annotations

import structlog

from reverie_jobs.mirror import Change, JobMirror
from reverie_protocol.jobs import Job

log = structlog.get_logger(__name__)


class Holes:
    """Each job counts its own revisions: one that is not the next to the last that came shows a hole.

    So does what the mirror noticed.  The bucket discards the oldest revisions of a job that has very many; any
    other hole is a fault of ours, or of nats-server.
    """

    def __init__(self, jobs: JobMirror) -> None:
        self._jobs = jobs
        self._own = 0
        self._shown = 0

    @property
    def seen(self) -> int:
        """How many there were."""
        return self._own + self._jobs.gaps

    def shows(self, change: Change[Job]) -> bool:
        """Whether something between this revision and what came before is missing."""
        job, previous = change.record, change.previous
        if job is not None and job.job_seq > 1 + (0 if previous is None else previous.job_seq):
            self._own += 1
            log.error(
                "revisions of a job were missed", job_id=job.id, revision=change.revision, live=change.live
            )
        new, self._shown = self.seen > self._shown, self.seen
        return new
