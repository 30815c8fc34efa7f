"""The worker: an actor on the event loop between the mirror of jobs and the engine's thread.

The record is the truth about who has a job.  Whatever this worker believes, it runs what the record says is its
own, and writes nothing for what is not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from reverie_inference.engine.events import Failed, Finished, Left, Started, Stepped, Switched, Tiled
from reverie_inference.engine.pictures import Pictures
from reverie_inference.settings import InferenceSettings
from reverie_inference.worker.assignment import Assignment, StopReason
from reverie_inference.worker.delivery import Delivery
from reverie_inference.worker.engine_thread import (
    EngineLost,
    EngineThread,
    Loaded,
    LoadFailed,
    LoadReached,
    PreviewMade,
    Report,
)
from reverie_inference.worker.inputs import Inputs
from reverie_inference.worker.patience import wait_up_to
from reverie_inference.worker.previews import Previews
from reverie_inference.worker.standing import BACKEND, Standing
from reverie_inference.worker.tally import Tally
from reverie_inference.worker.telling import telling
from reverie_jobs.claiming import can_serve
from reverie_jobs.controls import ControlMirror, closed_lanes
from reverie_jobs.mirror import Change, JobMirror, WorkerMirror
from reverie_jobs.store import JobStore, Stored
from reverie_jobs.transitions import Refused, claim
from reverie_protocol.controls import QueueControl
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import (
    MAX_SEED,
    GenerateParams,
    Job,
    JobMeta,
    JobState,
    ModeInfo,
    SuperResolutionParams,
    SwitchParams,
    WorkerState,
)
from reverie_protocol.subjects import WorkerHint
from reverie_runtime.bus.port import Bus, BusError, Entry, Message
from reverie_runtime.clock import Clock
from reverie_runtime.logs import bind_job

#: Looks for work at least this often, for jobs whose time comes without an event, in seconds.
LOOK_S: Final = 0.5
#: Pause after a claim that another worker won, until the mirror shows it.
LOST_CLAIM_S: Final = 0.02
#: Attempts remembered so that a late echo of one is not taken for a new one.
REMEMBERED_RUNS: Final = 4096

log = structlog.get_logger(__name__)


class InferenceWorker:
    """Claims, runs, tells, delivers.  All methods run on the event loop."""

    def __init__(
        self,
        settings: InferenceSettings,
        *,
        bus: Bus,
        store: JobStore,
        jobs: JobMirror,
        workers: WorkerMirror,
        controls: ControlMirror,
        delivery: Delivery,
        inputs: Inputs,
        clock: Clock,
        name: str,
        incarnation: str,
        node: str,
        tally: Tally,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._jobs = jobs
        self._workers = workers
        self._controls = controls
        self._delivery = delivery
        self._inputs = inputs
        self._clock = clock
        self._tally = tally
        self._assignments: dict[str, Assignment] = {}
        self._runs: dict[str, Assignment] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._past_runs: OrderedDict[str, None] = OrderedDict()
        self._claiming: set[str] = set()
        self._wake = asyncio.Event()
        self._draining = False
        self._claims_over = asyncio.Event()
        self._engine: EngineThread
        self._previews: Previews
        self.settled = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        self.on_switch: Callable[[str], Awaitable[None]] = _forget
        #: Told why this process can do no more work, once its jobs are on their way back to the queue.
        self.on_lost: Callable[[str], None] = lambda reason: None
        self.standing = Standing(
            settings,
            name=name,
            incarnation=incarnation,
            node=node,
            clock=clock,
            running=lambda: self._assignments,
        )

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that are this worker's now."""
        return tuple(self._assignments)

    def attach(self, engine: EngineThread) -> None:
        """Use this engine; before anything else."""
        self._engine = engine
        self._previews = Previews(engine.make_preview, most_per_second=self._settings.preview_hz)

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

    def on_report(self, report: Report) -> None:
        """Something happened in the engine."""
        match report:
            case Loaded(capabilities):
                self.standing.loaded(capabilities)
                if not self.settled.is_set():
                    log.info("model loaded", mode=capabilities.mode, device=capabilities.device)
                self._settle()
            case LoadReached(fraction):
                if self.standing.load_reached(fraction):
                    self.on_change()
            case LoadFailed(error):
                self.standing.broke(error)
                log.error("model not loaded", code=error.code, reason=error.message)
                self._settle()
            case EngineLost(reason):
                self._lose(reason)
            case PreviewMade(run_id):
                if run_id in self._runs:
                    self._previews.on_made(self._runs[run_id], report)
            case Finished() | Failed() | Left() | Switched():
                assignment = self._runs.pop(report.job_id, None)
                self._wake.set()
                if assignment is not None:
                    assignment.conclude(report)
            case Started() | Stepped() | Tiled():
                self._on_step(report)

    async def on_watch(self, message: Message) -> None:
        """Somebody watches a job's previews."""
        self._previews.leases.renew(message.subject.rpartition(".")[2], now=self._clock.monotonic())

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
        self.standing.drain()
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

    def _settle(self) -> None:
        self.settled.set()
        self._wake.set()
        self.on_change()

    def _next(self) -> Job | None:
        """The job to claim now, None if there is none or no room."""
        if self._draining or len(self._runs) >= self.standing.outline.slots:
            return None
        record = self.standing.outline
        now = self._clock.time()
        paused = closed_lanes(self._controls.control, worker=record.name)
        if record.state is not WorkerState.BROKEN:
            job = self._jobs.waiting.choose(record, now=now, paused=paused)
            if job is not None or not record.unavailable:
                return job
        # What only we could have done, and cannot: it fails with the reason instead of waiting for ever.
        modes = record.modes | {name: ModeInfo(model=name) for name in record.unavailable}
        able = replace(record, state=WorkerState.READY, modes=modes)
        job = self._jobs.waiting.choose(able, now=now, paused=paused)
        return job if job is not None and self._nobody_else(job) else None

    def _nobody_else(self, job: Job) -> bool:
        """Whether no other worker could do a job that we can only fail."""
        return not any(
            worker.incarnation != self.standing.outline.incarnation
            and worker.state in (WorkerState.READY, WorkerState.STARTING)
            and can_serve(job, worker)
            for worker in self._workers
        )

    async def _claim(self, job: Job) -> None:
        known = Stored(job, self._jobs.revision_of(job.id))
        change = partial(claim, worker=self.standing.key, now=self._clock.time())
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
        if job.state is not JobState.RUNNING or job.worker != self.standing.key:
            return
        # An id can come again, with its first attempt: a repeated idempotency key after the retention.
        past = f"{run_id}.{job.created_at}"
        if job.id in self._claiming or job.id in self._assignments or past in self._past_runs:
            return
        self._past_runs[past] = None
        while len(self._past_runs) > REMEMBERED_RUNS:
            self._past_runs.popitem(last=False)
        assignment = Assignment(job, self.standing.key)
        self._assignments[job.id] = assignment
        self._runs[assignment.run_id] = assignment
        task = asyncio.create_task(self._work(assignment), name=f"job {run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, assignment: Assignment) -> None:
        """From the claim to the terminal write."""
        job = assignment.job
        began_at = self._clock.monotonic()
        with bind_job(job.id):
            log.info("job started", attempt=job.attempt)
            try:
                try:
                    async with telling(assignment, self._bus, self._clock):
                        await self._begin(assignment)
                        outcome = await assignment.outcome
                        if isinstance(outcome, Switched):
                            await self.on_switch(outcome.mode)
                        state = await self._delivery.deliver(assignment, outcome)
                except Exception:
                    log.exception("job given up by a fault of ours")
                    self._let_go(assignment)
                    state = await self._delivery.give_up(assignment)
                seconds = round(self._clock.monotonic() - began_at, 3)
                self._tally.job_ended(state, seconds)
                log.info("job ended", state=state, attempt=job.attempt, seconds=seconds)
            except Exception:
                log.exception("job left as it is by a fault of ours")
            finally:
                del self._assignments[job.id]
                self.standing.loaded_for(job)
                latest = self._jobs.get(job.id)
                if latest is not None:
                    self._adopt(latest)  # requeued while we were frozen, and claimed by us again meanwhile
                self.on_change()
                self._wake.set()

    async def _begin(self, assignment: Assignment) -> None:
        """Hand the job to the engine with its pictures; one whose pictures cannot be had fails here."""
        params = assignment.job.params
        self.standing.loads(assignment.job)
        self.on_change()
        if not isinstance(params, GenerateParams | SuperResolutionParams | SwitchParams):
            raise TypeError(f"claimed a {assignment.job.type} job without its parameters")
        pictures = await self._read_inputs(assignment)
        if pictures is None:
            self._runs.pop(assignment.run_id, None)
            return
        seed = _seed_of(assignment.job.id)
        self._engine.admit(assignment.run_id, params, fallback_seed=seed, pictures=pictures)
        assignment.admitted = True
        if assignment.job.cancel:
            self._stop(assignment, StopReason.CANCELLED)

    async def _read_inputs(self, assignment: Assignment) -> Pictures | None:
        """The job's pictures; None if they cannot be had, or the job was stopped meanwhile."""
        reading = asyncio.ensure_future(self._inputs.read(assignment.job.params))
        either: set[asyncio.Future[Any]] = {reading, assignment.outcome}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if assignment.outcome.done():
                return None
            return reading.result()
        except ReverieError as error:
            assignment.conclude(Failed(assignment.run_id, error.code, error.message))
            return None
        finally:
            reading.cancel()

    def _lose(self, reason: str) -> None:
        """The engine is gone: give its jobs back, counted as crashes for one of them may be the cause, and end."""
        log.critical("engine lost", reason=reason)
        self._draining = True
        self.standing.drain()
        for assignment in tuple(self._assignments.values()):
            if not assignment.outcome.done():
                assignment.stop_reason = StopReason.LOST
                assignment.conclude(None)
        self._runs.clear()
        self._settle()
        self.on_lost(reason)

    def _let_go(self, assignment: Assignment) -> None:
        """Free the slot of a job that is given up."""
        if not assignment.admitted:
            self._runs.pop(assignment.run_id, None)  # the engine will never report on it
        elif assignment.run_id in self._runs:
            self._engine.leave(assignment.run_id, keep_partial=False)

    def _stop(self, assignment: Assignment, reason: StopReason) -> None:
        """End a job early; a stronger reason may follow a weaker one."""
        if assignment.stop_reason in (reason, StopReason.SUPERSEDED):
            return
        assignment.stop_reason = reason
        if assignment.outcome.done():
            return
        if reason is StopReason.DRAINED:
            # A step can be longer than the deadline: the job goes back now, the engine ends with the process.
            assignment.conclude(None)
        if assignment.admitted:
            self._engine.leave(assignment.run_id, keep_partial=reason is StopReason.CANCELLED)
        else:
            assignment.conclude(Left(assignment.run_id, None, JobMeta(seed=0, backend=BACKEND)))

    def _on_step(self, event: Started | Stepped | Tiled) -> None:
        if isinstance(event, Stepped):
            self._tally.stepped(event.step_seconds)
        assignment = self._runs.get(event.job_id)
        if assignment is None:
            return
        match event:
            case Started():
                assignment.progress.enter(event.phase, steps=event.steps or None)
            case Tiled():
                assignment.progress.tile(event.tile, event.tiles, event.tile_seconds)
            case Stepped():
                assignment.progress.step(event.step, event.steps, event.step_seconds)
        assignment.changed.set()
        if isinstance(event, Stepped):
            self._previews.on_step(assignment, event, now=self._clock.monotonic())


async def _forget(mode: str) -> None:
    return


def _seed_of(job_id: str) -> int:
    """The seed of a job that came without one: the same at every attempt."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:8], "big") % (MAX_SEED + 1)
