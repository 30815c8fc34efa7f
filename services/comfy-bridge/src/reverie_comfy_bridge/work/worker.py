"""The worker that stands for one instance: it claims, and has its instance do the work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from reverie_comfy_bridge.instance.actor import Instance
from reverie_comfy_bridge.instance.address import incarnation_of
from reverie_comfy_bridge.instance.client import Unreachable
from reverie_comfy_bridge.wire.queue import HistoryStatus, QueuedPrompt
from reverie_comfy_bridge.work.assignment import PromptAssignment
from reverie_comfy_bridge.work.dispatcher import Dispatcher
from reverie_comfy_bridge.work.execution import BACKEND, Execution, Means
from reverie_comfy_bridge.work.prompts import PromptName, read_mark
from reverie_comfy_bridge.work.tally import Tally
from reverie_comfy_bridge.workflows.offers import obstacle
from reverie_jobs.controls import ControlMirror, closed_lanes
from reverie_jobs.mirror import Change, JobMirror
from reverie_jobs.store import JobStore
from reverie_protocol.instances import ComfyInstance
from reverie_protocol.jobs import Job, JobState, JobType, Lane, Vram, Worker, WorkerState
from reverie_protocol.subjects import worker_ctl, worker_key, worker_ping
from reverie_runtime.bus.port import Bucket, Bus, BusError
from reverie_runtime.clock import Clock
from reverie_worker.assignment import StopReason
from reverie_worker.claimant import Claimant
from reverie_worker.heartbeat import Heartbeat

SERVICE: Final = "comfy-bridge"
#: How long a retired instance's prompts are waited for to be taken out, in seconds.
RETIRE_S: Final = 10.0

log = structlog.get_logger(__name__)


def worker_name(instance: str) -> str:
    """The name of the worker that stands for an instance."""
    return f"comfy-{instance}"


class InstanceWorker(Claimant[PromptAssignment]):
    """One instance's worker.  `wish` is what its record says of it, and follows it."""

    #: ComfyUI bounds its own rate; what waits here only comes late.
    _tell_s = 0.005

    def __init__(
        self,
        wish: ComfyInstance,
        instance: Instance,
        *,
        bus: Bus,
        workers: Bucket,
        store: JobStore,
        jobs: JobMirror,
        controls: ControlMirror,
        dispatcher: Dispatcher,
        means: Means,
        clock: Clock,
        tally: Tally,
    ) -> None:
        self.name = worker_name(wish.name)
        self._incarnation = incarnation_of(instance.url)
        super().__init__(
            bus=bus,
            store=store,
            jobs=jobs,
            delivery=means.delivery,
            clock=clock,
            key=worker_key(self.name, self._incarnation),
        )
        self.wish = wish
        self.instance = instance
        self.wanted = True
        self._workers = workers
        self._controls = controls
        self._dispatcher = dispatcher
        self._means = means
        self._tally = tally
        self._claimed_here: set[str] = set()
        self._executions: dict[str, Execution] = {}
        self._leftovers: dict[str, str] = {}
        self._kept: dict[str, str] = {}
        self._searched: dict[str, int] = {}
        self._looked_for: dict[str, int] = {}
        self._search_wanted = self._searching = False
        self._removing: set[str] = set()
        self._offered: tuple[object, tuple[str, ...], dict[str, str]] = (None, (), {})
        self._started_at = clock.time()
        instance.on_found = self._on_found
        instance.on_connected = self._on_connected

    # --- as the dispatcher sees it ---

    @property
    def free(self) -> bool:
        """Whether it takes work now."""
        return self._has_room and not self.wish.draining

    @property
    def load(self) -> int:
        """Prompts that it has to do, ours and others'."""
        return len(self._assignments) + self.instance.foreign

    @property
    def _has_room(self) -> bool:
        return len(self._assignments) < self.wish.max_prompts and not self._draining and self.instance.usable

    @property
    def leftovers(self) -> frozenset[str]:
        """Ids of waiting jobs whose former prompt is still inside it, or has ended there and can be fetched."""
        waiting = self._jobs.queued
        inside = {job_id for job_id in self._leftovers if job_id in waiting}
        closed = self._closed_lanes() if self._kept else ()
        kept = (waiting[job_id] for job_id in self._kept if job_id in waiting)
        return frozenset(inside.union(job.id for job in kept if job.priority not in closed))

    def unsure_of(self, job: Job) -> bool:
        """Whether its history was not yet searched for what a waiting job's former attempts left."""
        return self._searched.get(job.id) != job.attempt

    def wake(self) -> None:
        """Something changed that may let it claim."""
        self._wake.set()

    # --- its life ---

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work during the block; whoever leaves it calls `drain` or `retire` before."""
        async with contextlib.AsyncExitStack() as stack:
            for subject, handler in (
                (worker_ping(self._key), self.on_ping),
                (worker_ctl(self._key), self.on_hint),
            ):
                stack.push_async_callback((await self._bus.subscribe(subject, handler)).unsubscribe)
            heartbeat = Heartbeat(self._workers, self._key, self.record, clock=self._clock)
            self.on_change = heartbeat.hurry
            await stack.enter_async_context(heartbeat.run())
            await stack.enter_async_context(self.instance.living())
            stack.callback(self._jobs.listen(self.on_job))
            stack.callback(self._controls.listen(self.on_controls))
            claiming = asyncio.create_task(self._claim_once_tried(), name=f"claims of {self.name}")
            try:
                yield
            finally:
                claiming.cancel()
                await asyncio.gather(claiming, return_exceptions=True)

    async def _claim_once_tried(self) -> None:
        await self.instance.tried.wait()
        await self.claim_loop()

    async def drain(self, deadline_s: float) -> None:
        """See `Claimant.drain`; prompts that are inside go on, for whoever comes next."""
        if not self.instance.tried.is_set():
            self._claims_over.set()
        await super().drain(deadline_s)

    async def retire(self) -> None:
        """The instance is not to be used any more: take out what is inside, and queue its jobs again."""
        self.wanted = False
        for assignment in tuple(self._assignments.values()):
            assignment.retired = True
        await self.drain(0.0)

    async def abandon(self) -> None:
        """Another bridge has the instance: stop without a word, whatever is inside is its now."""
        self.wanted = False
        for assignment in tuple(self._assignments.values()):
            assignment.stop(StopReason.SUPERSEDED)
        await self.drain(0.0)

    def changed(self) -> None:
        """The instance is another than before."""
        self.on_change()
        self._wake.set()

    # --- what `Claimant` asks ---

    def _next(self) -> Job | None:
        if not self._has_room:
            return None
        # One that takes no more work still finishes what it has.
        own = self.leftovers if self.wish.draining else None
        if own is not None and not own:
            return None
        return self._jobs.waiting.choose(
            self._outline(),
            now=self._clock.time(),
            paused=self._closed_lanes(),
            takes=lambda job: (own is None or job.id in own) and self._dispatcher.takes(self, job),
        )

    def _closed_lanes(self) -> frozenset[Lane]:
        return closed_lanes(self._controls.control, worker=self.name)

    def on_job(self, change: Change[Job]) -> None:
        """See `Claimant.on_job`; a job that is queued again may have left its prompt inside."""
        super().on_job(change)
        job = change.record
        if job is not None and job.state is JobState.QUEUED and job.attempt and self.unsure_of(job):
            self._search_wanted = True
            self.instance.look_soon()

    async def _claim(self, job: Job) -> None:
        self._claimed_here.add(job.id)
        try:
            await super()._claim(job)
        finally:
            self._claimed_here.discard(job.id)

    def _assign(self, job: Job) -> PromptAssignment:
        fresh = job.id in self._claimed_here
        self._leftovers.pop(job.id, None)
        return PromptAssignment(job, self._key, fresh=fresh)

    async def _work(self, assignment: PromptAssignment) -> str:
        self.on_change()
        self._dispatcher.claimed(self)
        if assignment.job.cancel:
            assignment.stop(StopReason.CANCELLED)
        execution = self._executions[assignment.job.id] = Execution(
            assignment, self.instance, self._means, tags=self.wish.tags
        )
        try:
            return await execution.work()
        finally:
            del self._executions[assignment.job.id]

    def _stop(self, assignment: PromptAssignment, reason: StopReason) -> None:
        assignment.stop(reason)

    def _ended(self, assignment: PromptAssignment, state: str, seconds: float) -> None:
        self._tally.job_ended(self.instance.name, state, seconds)

    def _left(self, assignment: PromptAssignment) -> None:
        self._means.previews.ended(assignment.job.id)
        if assignment.stop_reason is StopReason.SUPERSEDED:
            self.instance.look_soon()

    # --- prompts of ours that nobody follows ---

    def _on_found(self, prompts: Sequence[QueuedPrompt]) -> None:
        self._leftovers = {}
        for prompt in prompts:
            name = read_mark(prompt.mark, platform=self._means.platform)
            if name is None:
                continue
            job = self._jobs.get(name.job)
            if job is not None and job.state is JobState.QUEUED:
                self._leftovers[name.job] = prompt.prompt_id
                self._wake.set()
            elif (
                not self._is_followed(name, prompt.prompt_id, job) and prompt.prompt_id not in self._removing
            ):
                self._removing.add(prompt.prompt_id)
                self._spawn(self._remove_orphan(name, prompt.prompt_id))
        self._looked_for = {job.id: job.attempt for job in self._jobs.queued.values() if job.attempt}
        self._search_history()  # after the queue: a prompt moves from the one to the other

    def _on_connected(self) -> None:
        self._kept, self._searched = {}, {}  # of before a restart, maybe
        self._search_wanted = True
        self._search_history()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def follows(self, prompt_id: str) -> bool:
        """Whether it has a job whose prompt this is."""
        return any(execution.taken_id == prompt_id for execution in self._executions.values())

    def _is_followed(self, name: PromptName, prompt_id: str, job: Job | None) -> bool:
        """Whether this is the prompt of a job that runs, or may turn out to be."""
        if job is None or job.state is not JobState.RUNNING:
            return False
        if job.worker != self._key:
            # A server that was entered under two names: what the other one sent or found is seen here, too.
            return name.attempt == job.attempt or self._dispatcher.follows(prompt_id)
        execution = self._executions.get(job.id)
        return execution is None or execution.taken_id in ("", prompt_id)

    async def _remove_orphan(self, name: PromptName, prompt_id: str) -> None:
        """Stop a prompt whose job is over, or runs elsewhere, by the record itself."""
        try:
            stored = await self._store.get(name.job)
            job = stored.job if stored is not None else None
            if job is not None and (job.state is JobState.QUEUED or self._is_followed(name, prompt_id, job)):
                return
            log.info("a prompt that nobody wants is removed", comfy_id=prompt_id, job_id=name.job)
            await self.instance.remove(prompt_id)
            await self.instance.client.forget(prompt_id)
        except (BusError, Unreachable) as error:
            log.info("a prompt that nobody wants stays for now", comfy_id=prompt_id, reason=str(error))
        finally:
            self._removing.discard(prompt_id)

    def _search_history(self) -> None:
        if self._search_wanted and not self._searching:
            self._searching = True
            self._spawn(self._search_while_wanted())

    async def _search_while_wanted(self) -> None:
        try:
            while self._search_wanted:
                self._search_wanted = False
                await self._search_once()
                self._wake.set()
                self._dispatcher.claimed(self)
        finally:
            self._searching = False

    async def _search_once(self) -> None:
        """Find what ended while nobody looked: a waiting job's result is kept in mind, others' are deleted."""
        # Those that waited when the queue was read: later ones may still be in it.
        searched = self._looked_for
        kept: dict[str, str] = {}
        try:
            history = await self.instance.client.recent_history()
            for entry in history.entries if history is not None else ():
                name = read_mark(entry.mark, platform=self._means.platform)
                if name is None:
                    continue
                if name.job in self._jobs.queued:
                    if entry.status is not HistoryStatus.INTERRUPTED:
                        kept[name.job] = entry.prompt_id
                elif name.job not in self._jobs.running and await self._is_over(name.job):
                    await self.instance.client.forget(entry.prompt_id)
        except (BusError, Unreachable) as error:
            log.info("the history stays as it is for now", instance=self.instance.name, reason=str(error))
        self._kept, self._searched = kept, searched

    async def _is_over(self, job_id: str) -> bool:
        stored = await self._store.get(job_id)
        return stored is None or stored.job.state.terminal

    # --- what it says of itself ---

    def fill(self, record: ComfyInstance) -> ComfyInstance:
        """The instance's record with what is observed."""
        return self.instance.observation.fill(record)

    def _outline(self) -> Worker:
        """The record without what changes all the time."""
        return replace(self.record(), state=WorkerState.READY)

    def record(self) -> Worker:
        """The heartbeat's record."""
        observation = self.instance.observation
        workflows, unavailable = self._offer()
        device = observation.devices[0] if observation.devices else None
        return Worker(
            name=self.name,
            incarnation=self._incarnation,
            service=SERVICE,
            state=self._state(),
            device=device.type if device is not None and device.type else "cpu",
            backend=BACKEND,
            job_types=(JobType.COMFY,),
            workflows=workflows,
            unavailable=unavailable,
            tags=self.wish.tags,
            slots=self.wish.max_prompts,
            running=self.running,
            vram=Vram(),
            detail=observation.detail,
            started_at=self._started_at,
            beat_at=self._clock.time(),
        )

    def _state(self) -> WorkerState:
        if self._draining or self.wish.draining:
            return WorkerState.DRAINING
        if self.instance.usable:
            return WorkerState.READY
        starting = not self.instance.tried.is_set() or (
            self.instance.observation.connected and self.instance.classes is None
        )
        return WorkerState.STARTING if starting else WorkerState.BROKEN

    def _offer(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Workflows that it can run, and why not the others; made anew only when something changed."""
        classes, catalogue = self.instance.classes, self._means.catalogue()
        if classes is None:
            return (), {}
        key = (self.instance.edition, id(catalogue), self.wish.tags)
        if self._offered[0] != key:
            reasons = {
                id_: obstacle(workflow, classes, self.wish.tags) for id_, workflow in catalogue.items()
            }
            self._offered = (
                key,
                tuple(id_ for id_, why in reasons.items() if not why),
                {id_: why for id_, why in reasons.items() if why},
            )
        return self._offered[1], self._offered[2]
