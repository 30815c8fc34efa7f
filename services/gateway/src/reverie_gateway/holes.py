"""Notices that revisions of a job were missed, whatever made it: the check on everything below."""

from __future__ import annotations

import structlog

from reverie_jobs.mirror import Change
from reverie_protocol.jobs import Job

log = structlog.get_logger(__name__)


class Holes:
    """Each job counts its own revisions: one that is not the next to the last that came shows a hole.

    `seen` counts them.  The bucket discards the oldest revisions of a job that has very many; any other hole is a
    fault of ours.
    """

    def __init__(self) -> None:
        self.seen = 0

    def shows(self, change: Change[Job]) -> bool:
        """Whether some revision between this one and the job's last is missing."""
        job, previous = change.record, change.previous
        if job is None or job.job_seq <= 1 + (0 if previous is None else previous.job_seq):
            return False
        self.seen += 1
        log.error("revisions of a job were missed", job_id=job.id, revision=change.revision, live=change.live)
        return True
