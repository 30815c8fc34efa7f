"""Waiting for jobs to end, by the mirror: a wait outlives restarts of NATS and of workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from reverie_gateway.problem import job_url
from reverie_jobs.mirror import Change, JobMirror
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import Job

DRAIN_RETRY_S = 1.0


class Waiters:
    """Who waits for which job's terminal record."""

    def __init__(self, jobs: JobMirror) -> None:
        self._waiting: dict[str, set[asyncio.Future[Job]]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        jobs.listen(self._on_change)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def expect(self, job_id: str) -> Iterator[asyncio.Future[Job]]:
        """A future of the job's terminal record; enter before submitting, so that no end is missed."""
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(future)
        self._idle.clear()
        try:
            yield future
        finally:
            future.cancel()
            waiting = self._waiting[job_id]
            waiting.discard(future)
            if not waiting:
                del self._waiting[job_id]
            if not self._waiting:
                self._idle.set()

    async def until_idle(self) -> None:
        """Return when nobody waits."""
        await self._idle.wait()

    def give_up(self) -> None:
        """End every wait because this gateway is going away; the jobs go on."""
        for job_id, futures in self._waiting.items():
            error = ReverieError(
                ErrorCode.SERVICE_UNAVAILABLE,
                f"this gateway is shutting down; the job goes on, see {job_url(job_id)}",
                retry_after=DRAIN_RETRY_S,
                job_id=job_id,
            )
            _settle(futures, error)

    def _on_change(self, change: Change[Job]) -> None:
        futures = self._waiting.get(change.key)
        if not futures:
            return
        if change.record is None:
            _settle(futures, ReverieError(ErrorCode.JOB_NOT_FOUND, "the job's record was removed"))
        elif change.record.state.terminal:
            _settle(futures, change.record)


def _settle(futures: set[asyncio.Future[Job]], outcome: Job | ReverieError) -> None:
    for future in futures:
        if future.done():
            continue
        if isinstance(outcome, Job):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
