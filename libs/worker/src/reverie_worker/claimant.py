"""The part of a worker that has jobs: an actor on the event loop between the mirror of jobs and the service's work.

The record is the truth about who has a job.  Whatever this worker believes, it runs what the record says is its
own, and writes nothing for what is not.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from reverie_jobs.mirror import Change, JobMirror
from reverie_jobs.store import JobStore, Stored
from reverie_jobs.transitions import Refused, claim
from reverie_protocol.controls import QueueControl
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import Job, JobState
from reverie_protocol.subjects import WorkerHint
from reverie_runtime.bus.port import Bus, BusError, Entry, Message
from reverie_runtime.clock import Clock
from reverie_runtime.logs import bind_job
from reverie_worker.assignment import Assignment, StopReason
from reverie_worker.delivery import Delivery
from reverie_worker.patience import wait_up_to
from reverie_worker.telling import MIN_INTERVAL_S, telling

#: Looks for work at least this often, for jobs whose time comes without an event, in seconds.
LOOK_S: Final = 0.5
#: Pause after a claim that another worker won, until the mirror shows it.
LOST_CLAIM_S: Final = 0.02
#: Attempts remembered so that a late echo of one is not taken for a new one.
REMEMBERED_RUNS: Final = 4096

log = structlog.get_logger(__name__)
A = TypeVar("A", bound=Assignment)


class Claimant(Generic[A]):
    """Claims, has worked on, gives back.  A service says what it takes (`_next`) and what work is (`_work`).

    All methods run on the event loop.  `key` is the worker's, as it stands in the records of its jobs.
    """

    #: Least time between two messages about one job, in seconds.
    _tell_s: float = MIN_INTERVAL_S

    def __init__(
        self, *, bus: Bus, store: JobStore, jobs: JobMirror, delivery: Delivery, clock: Clock, key: str
    ) -> None:
        self._bus = bus
        self._store = store
        self._jobs = jobs
        self._delivery = delivery
        self._clock = clock
        self._key = key
        self._assignments: dict[str, A] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._past_runs: OrderedDict[str, None] = OrderedDict()
        self._claiming: set[str] = set()
        self._wake = asyncio.Event()
        self._draining = False
        self._claims_over = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that are this worker's now."""
        return tuple(self._assignments)

    def _next(self) -> Job | None:
        """The job to claim now, None if there is none or no room."""
        raise NotImplementedError

    def _assign(self, job: Job) -> A:
        """The assignment of a job that was just claimed."""
        raise NotImplementedError

    async def _work(self, assignment: A) -> str:
        """From the claim to the terminal write; the job's state then."""
        raise NotImplementedError

    def _stop(self, assignment: A, reason: StopReason) -> None:
        """End a job early; a stronger reason may follow a weaker one."""
        raise NotImplementedError

    def _let_go(self, assignment: A) -> None:
        """Free what a job that is given up holds."""

    def _ended(self, assignment: A, state: str, seconds: float) -> None:
        """A job is over for this worker."""

    def _left(self, assignment: A) -> None:
        """The same, whichever way; its place is free."""

    async def claim_loop(self) -> None:
        """Claim whatever can be run until `drain`; a claim on its way is always seen to its end."""
        try:
            while not self._draining:
                self._wake.clear()
                try:
                    for running in tuple(self._jobs.running.values()):
                        self._adopt(running)
                    while (job := self._next()) is not None:
                        await self._claim(job)
                except Exception:
                    log.exception("looking for work failed")
                await wait_up_to(self._wake, LOOK_S, self._clock)
        finally:
            self._claims_over.set()

    def on_job(self, change: Change[Job]) -> None:
        """A job's record changed."""
        job, assignment = change.record, self._assignments.get(change.key)
        if assignment is not None:
            if not assignment.held_in(job):
                self._stop(assignment, StopReason.SUPERSEDED)
            elif job is not None and job.cancel:
                self._stop(assignment, StopReason.CANCELLED)
        elif job is not None and job.state is JobState.RUNNING:
            self._adopt(job)
        elif job is not None and job.state is JobState.QUEUED:
            self._wake.set()

    def on_controls(self, change: Change[QueueControl]) -> None:
        """A gate was opened or closed."""
        self._wake.set()

    async def on_hint(self, message: Message) -> None:
        """Somebody says that a job's record changed: look, in case the mirror is behind."""
        try:
            hint = msgspec.json.decode(message.data, type=WorkerHint)
            stored = await self._store.get(hint.job_id)
        except (msgspec.MsgspecError, BusError):
            return
        if stored is not None:
            self._mirror(stored)

    async def on_ping(self, message: Message) -> None:
        """Somebody asks whether we can hear."""
        if message.reply:
            await self._bus.publish(message.reply, b"")

    async def drain(self, deadline_s: float) -> None:
        """Claim nothing more, let running jobs end; requeue those that do not within `deadline_s`."""
        self._draining = True
        self.on_change()
        self._wake.set()
        await self._claims_over.wait()
        if self._tasks:
            patience = asyncio.ensure_future(self._clock.sleep(deadline_s))
            done = asyncio.ensure_future(asyncio.wait(tuple(self._tasks)))
            await asyncio.wait((patience, done), return_when=asyncio.FIRST_COMPLETED)
            patience.cancel()
            done.cancel()
        for assignment in tuple(self._assignments.values()):
            self._stop(assignment, StopReason.DRAINED)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _claim(self, job: Job) -> None:
        known = Stored(job, self._jobs.revision_of(job.id))
        change = partial(claim, worker=self._key, now=self._clock.time())
        self._claiming.add(job.id)
        try:
            stored = await self._store.apply(job.id, change, known=known)
        except (Refused, ReverieError):
            await self._clock.sleep(LOST_CLAIM_S)
        except BusError as error:
            log.info("no claim without the bus", reason=str(error))
            await self._clock.sleep(LOOK_S)
        else:
            self._claiming.discard(job.id)
            self._mirror(stored)
            self._adopt(stored.job)
        finally:
            self._claiming.discard(job.id)
        # The write may have been applied although its reply was lost.
        mirrored = self._jobs.get(job.id)
        if mirrored is not None:
            self._adopt(mirrored)

    def _mirror(self, stored: Stored) -> None:
        """Let the mirror know at once what it will hear soon."""
        self._jobs.apply(Entry(stored.job.id, msgspec.json.encode(stored.job), stored.revision))

    def _adopt(self, job: Job) -> None:
        """Run a job whose record says that it is ours, unless it runs already or is over."""
        run_id = f"{job.id}.{job.attempt}"
        if job.state is not JobState.RUNNING or job.worker != self._key:
            return
        # An id can come again, with its first attempt: a repeated idempotency key after the retention.
        past = f"{run_id}.{job.created_at}"
        if job.id in self._claiming or job.id in self._assignments or past in self._past_runs:
            return
        self._past_runs[past] = None
        while len(self._past_runs) > REMEMBERED_RUNS:
            self._past_runs.popitem(last=False)
        assignment = self._assign(job)
        self._assignments[job.id] = assignment
        task = asyncio.create_task(self._run(assignment), name=f"job {run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, assignment: A) -> None:
        job = assignment.job
        began_at = self._clock.monotonic()
        with bind_job(job.id):
            log.info("job started", attempt=job.attempt)
            try:
                try:
                    async with telling(assignment, self._bus, self._clock, interval_s=self._tell_s):
                        state = await self._work(assignment)
                except Exception:
                    log.exception("job given up by a fault of ours")
                    self._let_go(assignment)
                    state = await self._delivery.give_up(assignment)
                seconds = round(self._clock.monotonic() - began_at, 3)
                self._ended(assignment, state, seconds)
                log.info("job ended", state=state, attempt=job.attempt, seconds=seconds)
            except Exception:
                log.exception("job left as it is by a fault of ours")
            finally:
                del self._assignments[job.id]
                self._left(assignment)
                latest = self._jobs.get(job.id)
                if latest is not None:
                    self._adopt(latest)  # requeued while we were frozen, and claimed by us again meanwhile
                self.on_change()
                self._wake.set()
