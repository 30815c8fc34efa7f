"""Waiting for switches of mode that were asked for."""

from __future__ import annotations

import asyncio

from reverie_gateway.jobs import Jobs
from reverie_gateway.problem import job_url
from reverie_gateway.reach import shown
from reverie_gateway.status import StatusBoard
from reverie_gateway.synchronous import failure_of
from reverie_gateway.waiting import Waiters
from reverie_jobs.mirror import WorkerMirror
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import Job, JobState
from reverie_protocol.model_bodies import ModeSwitched


class Switches:
    """Waits for the jobs of a switch, and for the workers to say so."""

    def __init__(
        self, jobs: Jobs, waiters: Waiters, workers: WorkerMirror, board: StatusBoard, *, timeout_s: float
    ) -> None:
        self._jobs = jobs
        self._waiters = waiters
        self._workers = workers
        self._board = board
        self._timeout_s = timeout_s

    async def done(self, switched: ModeSwitched) -> None:
        """Return when every worker has switched; the error of one that could not, `wait_timeout`."""
        for job_id in switched.job_ids:
            job = await self._ended(job_id)
            if job.state is not JobState.COMPLETED:
                raise failure_of(job)
        await shown(self._workers, lambda: self._board.mode == switched.mode)

    async def _ended(self, job_id: str) -> Job:
        with self._waiters.expect(job_id) as end:
            job = self._jobs.mirrored(job_id)
            if job is not None and job.state.terminal:
                return job
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await end
            except TimeoutError:
                message = f"the mode was not loaded within {self._timeout_s:g} s; see {job_url(job_id)}"
                raise ReverieError(ErrorCode.WAIT_TIMEOUT, message, job_id=job_id) from None
