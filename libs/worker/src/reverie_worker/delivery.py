"""What a job gives goes to storage, then into its record; neither is given up while the job is ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from reverie_jobs.store import JobStore
from reverie_jobs.transitions import Refused, Superseded, fail, requeue
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode, ReverieError
from reverie_protocol.jobs import Job, JobError
from reverie_runtime.bus.port import BusError, MessageTooLarge
from reverie_runtime.clock import Clock
from reverie_runtime.crash_points import crash_point
from reverie_storage.port import Storage
from reverie_worker.assignment import Assignment, StopReason
from reverie_worker.patience import with_patience

RETRY_S: Final = 0.25
TOO_LARGE: Final = JobError(ErrorCode.INTERNAL, "What it made is more than a job's record can name.")

log = structlog.get_logger(__name__)


class Delivery:
    """Ends an assignment: one terminal write (or a requeue), and only if the job is still ours."""

    def __init__(self, store: JobStore, storage: Storage, *, clock: Clock) -> None:
        self._store = store
        self._storage = storage
        self._clock = clock

    async def give_up(self, assignment: Assignment) -> str:
        """Fail a job over a fault of ours, so that no record says for ever that it runs; its state then."""
        return await self._fail(assignment, ErrorCode.INTERNAL, "The worker failed; its log has the details.")

    async def _give_back(self, assignment: Assignment) -> str:
        """Queue the job again; a worker that is lost under it counts."""
        crashed = assignment.stop_reason is StopReason.LOST
        return await self._commit(assignment, partial(requeue, held=assignment.claim, crashed=crashed))

    async def _fail(self, assignment: Assignment, code: ErrorCode, message: str) -> str:
        error = JobError(code, message, ERROR_TRAITS[code].retryable)
        return await self._commit(assignment, partial(fail, held=assignment.claim, error=error))

    async def _put(self, content: bytes, *, content_type: str) -> str:
        """Store, waiting a while for a store that is away; StorageUnavailable in the end."""
        crash_point("before.output")
        key = await with_patience(lambda: self._storage.put(content, content_type=content_type), self._clock)
        crash_point("after.output")
        return key

    async def _commit(self, assignment: Assignment, change: Callable[..., Job]) -> str:
        """Apply a transition until the bus has taken it; the job's state then."""
        while True:
            try:
                stored = await self._store.apply(assignment.job.id, partial(self._changed, change))
            except (Superseded, Refused, ReverieError):
                # Requeued, expired or purged meanwhile: what we made is not wanted any more.
                log.info("result dropped, the job is no longer ours", job_id=assignment.job.id)
                return StopReason.SUPERSEDED
            except MessageTooLarge as error:
                log.error("result is too large for a record", job_id=assignment.job.id, reason=str(error))
                change = partial(fail, held=assignment.claim, error=TOO_LARGE)
            except BusError as error:
                log.warning("result waits for the bus", job_id=assignment.job.id, reason=str(error))
                await self._clock.sleep(RETRY_S)
            else:
                return stored.job.state

    def _changed(self, change: Callable[..., Job], job: Job) -> Job:
        return change(job, now=self._clock.time())
