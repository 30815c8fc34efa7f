"""A session's jobs: drafts in the background lane and full renders, in the same queue as everybody's.

Their owner is nobody who could log in (a token's `sub` has no space in it), so nobody is told of them or finds them
among his jobs; `session` says whose they are.  Their ids follow from the session's: a repeated submit is one job.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final

import msgspec
import structlog

from reverie_jobs.mirror import JobMirror
from reverie_jobs.store import JobStore, Stored
from reverie_jobs.transitions import Refused, request_cancel
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType, Lane
from reverie_protocol.subjects import WorkerHint, job_watch, worker_ctl
from reverie_runtime.bus.port import Bus, BusError, RevisionConflict
from reverie_runtime.clock import Clock
from reverie_storage.port import Storage, StorageUnavailable

#: How long a store that is away is waited for, and the pause between two tries, in seconds.
STORE_PATIENCE_S: Final = 30.0
RETRY_S: Final = 0.25

log = structlog.get_logger(__name__)


def draft_owner(session_id: str) -> str:
    """Owner of a session's jobs."""
    return f"dream {session_id}"


def draft_id(session_id: str, number: int) -> str:
    """Job of a candidate's draft."""
    return f"{session_id}-{number}"


def render_id(session_id: str, number: int) -> str:
    """Job of a candidate's full picture."""
    return f"{session_id}-r{number}"


class Drafts:
    """Submits, cancels, reads and forgets the jobs of sessions."""

    def __init__(self, bus: Bus, store: JobStore, jobs: JobMirror, storage: Storage, *, clock: Clock) -> None:
        self._bus = bus
        self._store = store
        self._jobs = jobs
        self._storage = storage
        self._clock = clock

    async def submit(self, session_id: str, job_id: str, params: GenerateParams, *, lane: Lane) -> None:
        """Make a job, or find it; BusUnavailable if it could not be written."""
        now = self._clock.time()
        job = Job(
            id=job_id,
            owner=draft_owner(session_id),
            type=JobType.GENERATE,
            state=JobState.QUEUED,
            priority=lane,
            position=now,
            session=session_id,
            request_hash=hashlib.sha256(msgspec.json.encode(params, order="sorted")).hexdigest(),
            params=params,
            created_at=now,
            enqueued_at=now,
            updated_at=now,
        )
        await self._store.submit(job)

    def job(self, job_id: str) -> Job | None:
        """As the mirror has it."""
        return self._jobs.get(job_id)

    def waiting(self, session_id: str) -> list[Job]:
        """A session's jobs that nobody has claimed."""
        return [job for job in self._jobs.queued.values() if job.session == session_id]

    async def fetched(self, job_id: str) -> Job | None:
        """As the store has it."""
        stored = await self._store.get(job_id)
        return None if stored is None else stored.job

    async def cancel(self, job_id: str) -> None:
        """Stop a job at once if it waits, at its next step if it runs; it may be over or gone."""
        now = self._clock.time()
        try:
            stored = await self._store.apply(job_id, lambda job: request_cancel(job, now=now))
        except (ReverieError, Refused):
            return
        job = stored.job
        if job.state is JobState.RUNNING and job.worker:
            await self._bus.publish(worker_ctl(job.worker), msgspec.json.encode(WorkerHint(job.id)))

    async def forget(self, job_id: str) -> None:
        """Purge the record of a job that is over."""
        job = self._jobs.get(job_id)
        if job is None or not job.state.terminal:
            return
        with contextlib.suppress(RevisionConflict, BusError):
            await self._store.purge(Stored(job, self._jobs.revision_of(job_id)))

    async def watch(self, job_id: str) -> None:
        """Keep a job's previews flowing."""
        with contextlib.suppress(BusError):
            await self._bus.publish(job_watch(job_id), b"")

    async def picture(self, key: str) -> bytes | None:
        """The bytes of a stored picture; None if it is not there, or the store is away for too long."""
        give_up_at = self._clock.monotonic() + STORE_PATIENCE_S
        while True:
            try:
                return await self._read(key)
            except StorageUnavailable as error:
                if self._clock.monotonic() >= give_up_at:
                    log.warning("a picture could not be read", reason=str(error))
                    return None
                await self._clock.sleep(RETRY_S)

    async def _read(self, key: str) -> bytes | None:
        found = await self._storage.stat(key)
        if found is None:
            return None
        return b"".join([chunk async for chunk in self._storage.read(key, start=0, stop=found.size_bytes)])

    async def discard(self, session_id: str, key: str) -> None:
        """Remove a picture that a session does not need any more, unless somebody else's job made the same."""
        others = (job for job in self._jobs if job.outputs and job.session != session_id)
        if any(output.key == key for job in others for output in job.outputs):
            return
        try:
            await self._storage.delete(key)
        except StorageUnavailable as error:
            log.info("a picture could not be removed", reason=str(error))

    async def touch(self, key: str) -> None:
        """Note that a picture is needed."""
        await self._storage.touch(key)
