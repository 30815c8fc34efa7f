"""Forgets jobs that ended long ago, so that the bucket does not grow for ever.

Every gateway does it.  A purge names the revision it means: a key that was purged by another gateway and has come
again since (a repeated idempotency key makes the same id) is left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from reverie_jobs.mirror import JobMirror
from reverie_jobs.store import JobStore, Stored
from reverie_protocol.jobs import Job
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import RevisionConflict
from reverie_runtime.clock import Clock

ROUND_S = 60.0
#: A record stays for so much longer than the retention, in seconds.  Revisions are not quite committed in the order
#: of the times in them (a write that took long, the clock of another machine), and by those times the event log
#: judges whether a cursor is older than anything that was forgotten.
MARGIN_S = 60.0
#: Jobs forgotten in one round, so that a backlog does not crowd out live writes.
MAX_PER_ROUND = 500

log = structlog.get_logger(__name__)


def expired(job: Job, *, now: float, retention_s: float) -> bool:
    """Whether a job has been over for longer than it is kept; times in seconds."""
    return job.state.terminal and job.finished_at is not None and job.finished_at + retention_s < now


class Janitor:
    """Purges the records of jobs that are over for `retention_s` seconds, and `MARGIN_S` more."""

    def __init__(self, store: JobStore, jobs: JobMirror, *, clock: Clock, retention_s: float) -> None:
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._kept_s = retention_s + MARGIN_S
        self._pause_s = 0.0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Clean up at once and then every `ROUND_S` while the context is open."""
        async with acting(self._round, name="janitor", clock=self._clock):
            yield

    async def clean(self) -> int:
        """One round; how many jobs were forgotten."""
        now = self._clock.time()
        old = [
            Stored(job, self._jobs.revision_of(job.id))
            for job in self._jobs
            if expired(job, now=now, retention_s=self._kept_s)
        ][:MAX_PER_ROUND]
        for stored in old:
            with contextlib.suppress(RevisionConflict):
                await self._store.purge(stored)
        return len(old)

    async def _round(self) -> None:
        await self._clock.sleep(self._pause_s)
        self._pause_s = ROUND_S
        forgotten = await self.clean()
        if forgotten:
            log.info("old jobs forgotten", count=forgotten)
