"""The worker: takes jobs by the rule, hands them to the engine's thread, and delivers what comes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from msgspec.structs import replace

from reverie_inference.engine.events import (
    Checkpointed,
    Failed,
    Finished,
    Left,
    Started,
    Stepped,
    Switched,
    Tiled,
)
from reverie_inference.engine.pictures import Pictures
from reverie_inference.settings import InferenceSettings
from reverie_inference.worker.assignment import EngineAssignment, Outcome
from reverie_inference.worker.checkpoints import Checkpoints
from reverie_inference.worker.delivery import PictureDelivery
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
from reverie_inference.worker.previews import Previews
from reverie_inference.worker.standing import BACKEND, Standing
from reverie_inference.worker.tally import Tally
from reverie_jobs.claiming import can_serve, far_away, ready_since
from reverie_jobs.controls import ControlMirror, closed_lanes
from reverie_jobs.mirror import Change, JobMirror, WorkerMirror
from reverie_jobs.store import JobStore
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import (
    MAX_SEED,
    GenerateParams,
    Job,
    JobMeta,
    JobState,
    Lane,
    ModeInfo,
    SuperResolutionParams,
    SwitchParams,
    Worker,
    WorkerState,
)
from reverie_runtime.bus.port import Bus, Message
from reverie_runtime.clock import Clock
from reverie_worker.assignment import StopReason
from reverie_worker.claimant import Claimant

#: How long a job waits, so that loading its model does not hold up more urgent ones, in seconds.
LOADS_ANYWAY_S: Final = 30.0
_ENDED = frozenset(state.value for state in JobState if state.terminal)

log = structlog.get_logger(__name__)


class InferenceWorker(Claimant[EngineAssignment]):
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
        delivery: PictureDelivery,
        inputs: Inputs,
        clock: Clock,
        name: str,
        incarnation: str,
        node: str,
        tally: Tally,
        checkpoints: Checkpoints,
    ) -> None:
        self.standing = Standing(
            settings,
            name=name,
            incarnation=incarnation,
            node=node,
            clock=clock,
            running=lambda: self._assignments,
        )
        super().__init__(
            bus=bus, store=store, jobs=jobs, delivery=delivery, clock=clock, key=self.standing.key
        )
        self._delivery: PictureDelivery = delivery
        self._settings = settings
        self._workers = workers
        self._controls = controls
        self._inputs = inputs
        self._tally = tally
        self._checkpoints = checkpoints
        self._runs: dict[str, EngineAssignment] = {}
        #: Jobs for which others left too little memory: each runs next with the engine to itself.
        self._alone: set[str] = set()
        self._engine: EngineThread
        self._previews: Previews
        self.settled = asyncio.Event()
        self.on_switch: Callable[[str], Awaitable[None]] = _forget
        #: Told why this process can do no more work, once its jobs are on their way back to the queue.
        self.on_lost: Callable[[str], None] = lambda reason: None

    def attach(self, engine: EngineThread) -> None:
        """Use this engine; before anything else."""
        self._engine = engine
        self._previews = Previews(engine.make_preview, most_per_second=self._settings.preview_hz)

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
            case Started() | Stepped() | Checkpointed() | Tiled():
                self._on_step(report)

    def on_job(self, change: Change[Job]) -> None:
        """See `Claimant.on_job`; another lane of a job that runs acts at its next step."""
        super().on_job(change)
        job, assignment = change.record, self._assignments.get(change.key)
        if (
            job is None
            or assignment is None
            or not assignment.held_in(job)
            or assignment.lane == job.priority
        ):
            return
        assignment.lane = job.priority
        if assignment.admitted:
            self._engine.reprioritise(assignment.run_id, job.priority)
        self._wake.set()

    async def on_watch(self, message: Message) -> None:
        """Somebody watches a job's previews."""
        self._previews.leases.renew(message.subject.rpartition(".")[2], now=self._clock.monotonic())

    async def drain(self, deadline_s: float) -> None:
        """See `Claimant.drain`."""
        self.standing.drain()
        await super().drain(deadline_s)

    def _settle(self) -> None:
        self.settled.set()
        self._wake.set()
        self.on_change()

    def _next(self) -> Job | None:
        """The job to claim now, None if there is none or no room."""
        record = self.standing.outline
        if self._draining or len(self._runs) >= record.slots + self._settings.displaced:
            return None
        if any(run.job.id in self._alone for run in self._runs.values()):
            return None
        job = self._choose(record)
        # Later ones wait with it: with them in its way it would wait for ever.
        return None if job is not None and self._runs and job.id in self._alone else job

    def _choose(self, record: Worker) -> Job | None:
        """The job that is next by the rule."""
        now = self._clock.time()
        paused = closed_lanes(self._controls.control, worker=record.name) | self._full_lanes(record.slots)
        if record.state is not WorkerState.BROKEN:
            job = self._jobs.waiting.choose(record, now=now, paused=paused)
            if job is not None and self._holds_up(job, record, now):
                loaded = {name: mode for name, mode in record.modes.items() if mode.loaded}
                return self._jobs.waiting.choose(replace(record, modes=loaded), now=now, paused=paused)
            if job is not None or not record.unavailable:
                return job
        # What only we could have done, and cannot: it fails with the reason instead of waiting for ever.
        modes = record.modes | {name: ModeInfo(model=name) for name in record.unavailable}
        able = replace(record, state=WorkerState.READY, modes=modes)
        job = self._jobs.waiting.choose(able, now=now, paused=paused)
        return job if job is not None and self._nobody_else(job) else None

    def _holds_up(self, job: Job, record: Worker, now: float) -> bool:
        """Whether more urgent jobs that run would stand still for it: loading its model cannot be divided.

        Another worker may take it meanwhile; once it has waited for long enough they stand still.
        """
        if now - ready_since(job) >= LOADS_ANYWAY_S or not far_away(job, record, waited_s=0.0):
            return False
        return any(run.lane < job.priority for run in self._runs.values())

    def _full_lanes(self, slots: int) -> frozenset[Lane]:
        """Lanes of which no more is taken: jobs of these and higher ones fill the slots.

        A job of a higher lane is taken all the same, and displaces one of a lower.
        """
        held = [run.lane for run in self._runs.values()]
        return frozenset(lane for lane in Lane if sum(other <= lane for other in held) >= slots)

    def _nobody_else(self, job: Job) -> bool:
        """Whether no other worker could do a job that we can only fail."""
        return not any(
            worker.incarnation != self.standing.outline.incarnation
            and worker.state in (WorkerState.READY, WorkerState.STARTING)
            and can_serve(job, worker)
            for worker in self._workers
        )

    def _assign(self, job: Job) -> EngineAssignment:
        assignment = EngineAssignment(job, self._key)
        self._runs[assignment.run_id] = assignment
        return assignment

    async def _work(self, assignment: EngineAssignment) -> str:
        await self._begin(assignment)
        outcome = await assignment.outcome
        if self._was_crowded_out(assignment.job, outcome):
            log.info("too little memory beside others", job_id=assignment.job.id)
            self._alone = {job_id for job_id in self._alone if job_id in self._jobs.queued}
            self._alone.add(assignment.job.id)
            outcome = None
        if isinstance(outcome, Switched):
            await self.on_switch(outcome.mode)
        state = await self._delivery.deliver(assignment, outcome)
        if state in _ENDED:
            self._alone.discard(assignment.job.id)
            await self._checkpoints.forget(assignment.job.id)
        else:
            self._checkpoints.let_go(assignment.job.id)
        return state

    def _was_crowded_out(self, job: Job, outcome: Outcome | None) -> bool:
        """Whether a job may have failed only because of what others took of the memory."""
        short = isinstance(outcome, Failed) and outcome.code is ErrorCode.OUT_OF_MEMORY
        return short and bool(self._runs) and job.id not in self._alone

    def _ended(self, assignment: EngineAssignment, state: str, seconds: float) -> None:
        self._tally.job_ended(state, seconds)

    def _left(self, assignment: EngineAssignment) -> None:
        self.standing.loaded_for(assignment.job)

    async def _begin(self, assignment: EngineAssignment) -> None:
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
        checkpoint = b""
        if assignment.job.attempt > 1 and isinstance(params, GenerateParams):
            checkpoint = await self._checkpoints.find(assignment.job.id)
            if assignment.outcome.done():
                self._runs.pop(assignment.run_id, None)
                return
        self._engine.admit(
            assignment.run_id,
            params,
            fallback_seed=_seed_of(assignment.job.id),
            pictures=pictures,
            lane=assignment.lane,
            checkpoint=checkpoint,
        )
        assignment.admitted = True
        if assignment.job.cancel:
            self._stop(assignment, StopReason.CANCELLED)

    async def _read_inputs(self, assignment: EngineAssignment) -> Pictures | None:
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

    def _let_go(self, assignment: EngineAssignment) -> None:
        """Free the slot of a job that is given up."""
        if not assignment.admitted:
            self._runs.pop(assignment.run_id, None)  # the engine will never report on it
        elif assignment.run_id in self._runs:
            self._engine.leave(assignment.run_id, keep_partial=False)

    def _stop(self, assignment: EngineAssignment, reason: StopReason) -> None:
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

    def _on_step(self, event: Started | Stepped | Checkpointed | Tiled) -> None:
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
            case Checkpointed():
                self._checkpoints.keep(assignment.job.id, event.step, event.content)
                return
        assignment.changed.set()
        if isinstance(event, Stepped):
            self._previews.on_step(assignment, event, now=self._clock.monotonic())


async def _forget(mode: str) -> None:
    return


def _seed_of(job_id: str) -> int:
    """The seed of a job that came without one: the same at every attempt."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:8], "big") % (MAX_SEED + 1)
