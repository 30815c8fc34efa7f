"""Gateways and workers at the job table, with every fault that the bus port allows: the table stays lawful."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.reaper import LEASE_S, Reaper, requeue_former_self, requeue_lost
from reverie_jobs.store import JOBS, JobStore, Stored, Submitted, decode_entry
from reverie_jobs.submission import new_job, retry_of
from reverie_jobs.transitions import (
    MAX_CRASHES,
    Claim,
    Refused,
    Superseded,
    cancel_finished,
    claim,
    complete,
    fail,
    overdue,
    reprioritise,
    request_cancel,
    requeue,
)
from reverie_jobs.waiting import WaitingRoom
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobError,
    JobState,
    JobType,
    Lane,
    Output,
    Worker,
    WorkerState,
)
from reverie_protocol.subjects import worker_ping
from reverie_runtime.bus.memory import MemoryBus, MemoryServer
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bus, BusUnavailable, Entry, Message
from reverie_testing.clock import VirtualClock
from reverie_testing.faulty_bucket import FaultyBucket, Loss
from reverie_testing.nats_server import NatsServer

OUTPUT = Output(url="/storage/k", key="k")
REASON = JobError(ErrorCode.INTERNAL, "bad luck")
GATEWAYS = ("gateway0", "gateway1")
MAX_WORKERS = 3
#: How long the real server may take for what is under way, in seconds.
GENEROUS_S = 60.0
#: Turns of the event loop that a call gets before the next rule; None is as many as it needs.
PACE = st.sampled_from([None, None, None, 0, 1, 2, 3, 4, 6, 8])
LOSS = st.sampled_from([None, None, None, *Loss])
NOT_DONE = (Refused, Superseded, ReverieError)
_serial = itertools.count()

Outcome = Stored | Submitted | Exception | None


class Memory:
    """Everything on the bus in memory: time passes when the machine says so."""

    has_leases = True

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.server = MemoryServer(self.clock)

    async def bus(self) -> Bus:
        return MemoryBus(self.server)

    async def finish(self, tasks: Callable[[], set[asyncio.Task[Any]]]) -> None:
        await self.clock.settle()
        while tasks():
            await self.clock.advance(0.1)


class Real:
    """Everything on a real nats-server; the machine's clock is only what records are stamped with."""

    has_leases = False

    def __init__(self, url: str) -> None:
        self.clock = VirtualClock()
        self._url = url

    async def bus(self) -> Bus:
        return await connect_nats(self._url, name="machine")

    async def finish(self, tasks: Callable[[], set[asyncio.Task[Any]]]) -> None:
        if tasks():
            await asyncio.wait(tasks(), timeout=GENEROUS_S)


class Process:
    """One process: its connection, its faulty way to the bucket, its mirror.  It dies when its stack is closed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mirror = JobMirror()
        self.stack = AsyncExitStack()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.held: list[Claim] = []
        self.calls = itertools.count()

    async def open(self, bus: Bus, bucket: FaultyBucket) -> None:
        self.bus, self.bucket = bus, bucket
        self.stack.push_async_callback(bus.close)
        await self.stack.enter_async_context(follow(self.mirror, bucket))

    def store(self, call: str) -> JobStore:
        """A store whose writes carry the name of the call that they belong to."""
        numbers = itertools.count()
        return JobStore(self.bucket, new_op=lambda: f"{call}#{next(numbers)}")

    async def answer(self, message: Message) -> None:
        if not self.bucket.frozen:
            await self.bus.publish(message.reply, b"")

    async def die(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.stack.aclose()


class Law:
    """What may follow what in the bucket, whoever writes and whatever gets lost."""

    def __init__(self) -> None:
        self.revisions: dict[int, Job] = {}
        self.latest: dict[str, Stored] = {}
        self.first_op: dict[str, str] = {}
        self.calls: dict[str, int] = {}
        self.workers_of: dict[str, list[str]] = {}

    def see(self, stored: Stored, *, unheard: set[str], dead: set[str]) -> None:
        job, before = stored.job, self.latest.get(stored.job.id)
        assert stored.revision > max(self.revisions, default=0)
        call = job.op.rpartition("#")[0]
        if not call.endswith("/reaper"):
            assert call not in self.calls, "one call wrote twice"
        self.calls[call] = stored.revision
        if before is None:
            assert (job.state, job.attempt, job.crashes, job.job_seq) == (JobState.QUEUED, 0, 0, 1)
            self.first_op[job.id] = call
        else:
            self._move(before.job, job, writer=job.op.partition("/")[0], unheard=unheard, dead=dead)
        self.revisions[stored.revision] = job
        self.latest[job.id] = stored

    def _move(self, before: Job, job: Job, *, writer: str, unheard: set[str], dead: set[str]) -> None:
        assert not before.state.terminal, "something came after the end"
        assert job.job_seq == before.job_seq + 1
        assert (job.params, job.owner, job.created_at) == (before.params, before.owner, before.created_at)
        claimed = before.state is JobState.QUEUED and job.state is JobState.RUNNING
        assert job.attempt == before.attempt + claimed
        if claimed:
            assert job.worker == writer, "somebody claimed for another"
            assert (job.not_before or 0) <= job.updated_at
            self.workers_of.setdefault(job.id, []).append(writer)
        elif writer not in GATEWAYS and job.worker is not None and not job.op.startswith(f"{writer}/boot/"):
            assert before.worker == writer, "a superseded worker wrote"
        if before.cancel:
            assert job.cancel
            assert job.state in (JobState.RUNNING, JobState.CANCELLED), "a cancel was forgotten"
        assert bool(job.outputs) == (job.state is JobState.COMPLETED or job.partial)
        assert not job.partial or job.state is JobState.CANCELLED
        assert job.crashes == len(job.lost_workers) == len(set(job.lost_workers))
        lost = set(job.lost_workers) - set(before.lost_workers)
        assert lost <= {before.worker}
        assert lost <= unheard | dead, "a worker that answers was taken for dead"
        assert set(job.lost_workers) <= set(self.workers_of.get(job.id, ()))
        if before.state is JobState.RUNNING and job.state is JobState.QUEUED:
            assert before.worker in job.lost_workers or writer not in GATEWAYS, (
                "a job was taken from its worker"
            )
        if job.error is not None and job.error.code == ErrorCode.CRASH_LOOP:
            assert len(set(job.lost_workers) & (unheard | dead)) >= MAX_CRASHES
            assert before.worker in dead
        if job.error is not None and job.error.code == ErrorCode.DEADLINE_EXCEEDED:
            assert overdue(before, now=job.updated_at)


class JobTable(RuleBasedStateMachine):
    """Two gateways and a few workers; each rule begins something, and may leave it under way for the next."""

    def __init__(self, world: Memory | Real) -> None:
        super().__init__()
        self.world = world
        self.loop = asyncio.new_event_loop()
        self.config = msgspec.structs.replace(JOBS, name=f"jobs{next(_serial)}", republish="")
        self.law = Law()
        self.witnessed: asyncio.Queue[Stored] = asyncio.Queue()
        self.markers = 0
        self.marker_revision = 0
        self.gateways: dict[str, Process] = {}
        self.workers: dict[str, Process] = {}
        self.wires: list[FaultyBucket] = []
        self.unheard: set[str] = set()
        self.dead: set[str] = set()
        self.outcomes: list[tuple[str, str, Outcome]] = []
        self.acknowledged: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.won: dict[tuple[str, int], str] = {}
        self.serial = itertools.count(1)
        self.stack = AsyncExitStack()

    def run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self.loop.run_until_complete(awaited())

    @property
    def now(self) -> float:
        return self.world.clock.time()

    # -- processes

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())

    async def _begin(self) -> None:
        bus = await self.world.bus()
        self.stack.push_async_callback(bus.close)
        self.bucket = await bus.bucket(self.config)
        watching = asyncio.create_task(self._witness())
        self.stack.callback(watching.cancel)
        for name in GATEWAYS:
            await self._open_gateway(name)

    async def _witness(self) -> None:
        async with self.bucket.watch(history=True) as events:
            async for event in events:
                if not isinstance(event, Entry):
                    continue
                if event.key == "marker":
                    self.marker_revision = event.revision
                    self.markers += 1
                elif (stored := decode_entry(event)) is not None:
                    self.witnessed.put_nowait(stored)

    async def _open(self, name: str) -> Process:
        process = Process(name)
        bus = await self.world.bus()
        wire = FaultyBucket(await bus.bucket(self.config))
        self.wires.append(wire)
        await process.open(bus, wire)
        return process

    async def _open_gateway(self, name: str) -> None:
        gateway = self.gateways[name] = await self._open(name)
        if self.world.has_leases:
            store = gateway.store(f"{name}/{next(self.serial)}/reaper")
            reaper = Reaper(gateway.bus, store, gateway.mirror, clock=self.world.clock)
            await gateway.stack.enter_async_context(reaper.run())

    async def _open_worker(self, name: str) -> None:
        worker = await self._open(name)
        await worker.bus.subscribe(worker_ping(name), worker.answer)
        self.workers[name] = worker

    def begin_call(
        self,
        process: Process,
        kind: str,
        call: Callable[[JobStore], Coroutine[Any, Any, Outcome]],
        *,
        pace: int | None = None,
        loss: Loss | None = None,
    ) -> None:
        """Start a call of a process; it gets `pace` turns before the next rule, or all that it needs."""
        name = f"{process.name}/{kind}{next(self.serial)}"

        async def calling() -> None:
            try:
                outcome: Outcome = await call(process.store(name))
                if kind == "claim" and isinstance(outcome, Stored):
                    self._won(process, outcome.job)
            except Exception as error:
                outcome = error
            self.outcomes.append((name, kind, outcome))

        async def start() -> None:
            task = asyncio.create_task(calling(), name=name)
            process.tasks.add(task)
            task.add_done_callback(process.tasks.discard)
            for _ in range(pace or 0):
                await asyncio.sleep(0)

        if loss is not None:
            process.bucket.lose(loss)
        self.run(start())
        if pace is None:
            self.settle()

    def _won(self, process: Process, job: Job) -> None:
        assert job.worker == process.name
        assert self.won.setdefault((job.id, job.attempt), process.name) == process.name
        process.held.append(Claim(job.id, process.name, job.attempt))

    # -- time and faults

    def settle(self) -> None:
        self.run(self._settle())

    async def _settle(self) -> None:
        def busy() -> set[asyncio.Task[Any]]:
            return {
                task
                for process in (*self.gateways.values(), *self.workers.values())
                if not process.bucket.frozen
                for task in process.tasks
            }

        await self.world.finish(busy)
        expected = self.markers + 1
        await self.bucket.delete("marker")
        async with asyncio.timeout(GENEROUS_S):
            while self.markers < expected or any(
                each.mirror.revision < self.marker_revision for each in self.awake()
            ):
                await asyncio.sleep(0)

    def awake(self) -> list[Process]:
        processes = (*self.gateways.values(), *self.workers.values())
        return [each for each in processes if not each.bucket.frozen]

    @rule(seconds=st.sampled_from([0.3, 1.0, LEASE_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.world.clock.advance(seconds))
        self.settle()
        if not self.world.has_leases:
            self.run(self._verdicts())
            self.settle()

    async def _verdicts(self) -> None:
        """What the reapers of both gateways come to at the same time."""
        calls = []
        for gateway in self.gateways.values():
            for job in tuple(gateway.mirror.running.values()):
                gone = job.worker in self.dead
                if gone or (job.worker in self.workers and self.workers[job.worker].bucket.frozen):
                    store = gateway.store(f"{gateway.name}/{next(self.serial)}/reaper")
                    calls.append(requeue_lost(gateway.bus, store, job, gone=gone, now=self.now))
        await asyncio.gather(*calls)

    @rule()
    def what_was_on_its_way_arrives(self) -> None:
        self.run(self._deliver_late())
        self.settle()

    async def _deliver_late(self) -> None:
        for wire in self.wires:
            if not wire.frozen:
                await wire.deliver_late()

    @precondition(lambda self: self.world.has_leases)
    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0]))
    def the_server_restarts(self, seconds: float) -> None:
        self.world.server.kill()
        self.run(self.world.clock.advance(seconds))
        self.world.server.restart()
        self.settle()

    @rule(name=st.sampled_from(GATEWAYS))
    def a_gateway_dies_and_another_takes_its_place(self, name: str) -> None:
        self.run(self.gateways[name].die())
        self.run(self._open_gateway(name))
        self.settle()

    # -- clients

    @rule(
        name=st.sampled_from(GATEWAYS),
        owner=st.sampled_from(["ann", "bob"]),
        key=st.sampled_from([None, None, "k", "l"]),
        prompt=st.sampled_from(["p", "p", "q"]),
        lane=st.sampled_from([Lane.NORMAL, Lane.NORMAL, Lane.URGENT]),
        limit=st.sampled_from([None, None, None, "start_by", "finish_by", "not_before"]),
        pace=PACE,
        loss=LOSS,
    )
    def submits(
        self,
        name: str,
        owner: str,
        key: str | None,
        prompt: str,
        lane: Lane,
        limit: str | None,
        pace: int | None,
        loss: Loss | None,
    ) -> None:
        submit = JobSubmit(params=GenerateParams(prompt=prompt, seed=1), priority=lane, idempotency_key=key)
        if limit is not None and key is None:
            submit = msgspec.structs.replace(submit, **{limit: self.now + 2})
        job = new_job(submit, owner=owner, now=self.now, random_bits=lambda _: next(self.serial))
        self.begin_call(self.gateways[name], "submit", lambda store: store.submit(job), pace=pace, loss=loss)

    @precondition(lambda self: self.law.latest)
    @rule(name=st.sampled_from(GATEWAYS), which=st.integers(0, 99), pace=PACE, loss=LOSS)
    def cancels(self, name: str, which: int, pace: int | None, loss: Loss | None) -> None:
        self._apply(self.gateways[name], "cancel", self.some_job(which), request_cancel, pace=pace, loss=loss)

    @precondition(lambda self: self.law.latest)
    @rule(
        name=st.sampled_from(GATEWAYS),
        which=st.integers(0, 99),
        lane=st.sampled_from(Lane),
        pace=PACE,
        loss=LOSS,
    )
    def moves(self, name: str, which: int, lane: Lane, pace: int | None, loss: Loss | None) -> None:
        change = partial(reprioritise, lane=lane, position=float(which))
        self._apply(self.gateways[name], "move", self.some_job(which), change, pace=pace, loss=loss)

    @precondition(lambda self: any(each.job.state.terminal for each in self.law.latest.values()))
    @rule(name=st.sampled_from(GATEWAYS), which=st.integers(0, 99), pace=PACE, loss=LOSS)
    def retries(self, name: str, which: int, pace: int | None, loss: Loss | None) -> None:
        ended = [each.job for each in self.law.latest.values() if each.job.state.terminal]
        again = retry_of(ended[which % len(ended)], now=self.now)
        self.begin_call(
            self.gateways[name], "submit", lambda store: store.submit(again), pace=pace, loss=loss
        )

    def some_job(self, which: int) -> str:
        ids = list(self.law.latest)
        return ids[which % len(ids)]

    def _apply(
        self, process: Process, kind: str, job_id: str, change: Callable[..., Any], **manner: Any
    ) -> None:
        timed = partial(change, now=self.now)
        self.begin_call(process, kind, lambda store: store.apply(job_id, timed), **manner)

    # -- workers

    @precondition(lambda self: len(self.workers) < MAX_WORKERS)
    @rule()
    def a_worker_starts(self) -> None:
        self.run(self._open_worker(f"w{next(self.serial)}.1"))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 9), pace=PACE, loss=LOSS)
    def claims(self, which: int, pace: int | None, loss: Loss | None) -> None:
        worker = self.some_worker(which)
        record = Worker(
            name=worker.name,
            incarnation="1",
            service="inference",
            state=WorkerState.READY,
            job_types=(JobType.GENERATE,),
        )
        job = worker.mirror.waiting.choose(record, now=self.now)
        if job is None:
            return
        known = Stored(job, worker.mirror.revision_of(job.id))
        change = partial(claim, worker=worker.name, now=self.now)
        self.begin_call(
            worker, "claim", lambda store: store.apply(job.id, change, known=known), pace=pace, loss=loss
        )

    @precondition(lambda self: any(worker.held for worker in self.workers.values()))
    @rule(
        which=st.integers(0, 99),
        verb=st.sampled_from(["complete", "complete", "fail", "stop", "give_back"]),
        pace=PACE,
        loss=LOSS,
    )
    def ends_what_it_holds_or_held(self, which: int, verb: str, pace: int | None, loss: Loss | None) -> None:
        held = [(worker, each) for worker in self.workers.values() for each in worker.held]
        worker, mine = held[which % len(held)]
        change: Callable[..., Job] = {
            "complete": partial(complete, held=mine, outputs=[OUTPUT], meta=None),
            "fail": partial(fail, held=mine, error=REASON),
            "stop": partial(_stop, held=mine),
            "give_back": partial(requeue, held=mine, crashed=False),
        }[verb]
        self._apply(worker, verb, mine.job_id, change, pace=pace, loss=loss)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 9))
    def freezes(self, which: int) -> None:
        worker = self.some_worker(which)
        worker.bucket.freeze()
        self.unheard.add(worker.name)

    @precondition(lambda self: any(worker.bucket.frozen for worker in self.workers.values()))
    @rule(wait=st.booleans())
    def the_frozen_wake(self, wait: bool) -> None:
        for worker in self.workers.values():
            worker.bucket.thaw()
        if wait:
            self.settle()

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 9), comes_back=st.booleans())
    def dies(self, which: int, comes_back: bool) -> None:
        worker = self.some_worker(which)
        del self.workers[worker.name]
        self.dead.add(worker.name)
        self.run(worker.die())
        worker.bucket.thaw()
        if not comes_back:
            return
        name, _, incarnation = worker.name.rpartition(".")
        again = f"{name}.{int(incarnation) + 1}"
        self.run(self._open_worker(again))
        new = self.workers[again]
        store = new.store(f"{again}/boot/reaper")
        self.run(requeue_former_self(new.bus, store, new.mirror, name=name, now=self.now))

    def some_worker(self, which: int) -> Process:
        return list(self.workers.values())[which % len(self.workers)]

    # -- what must hold

    @invariant()
    def the_table_is_lawful(self) -> None:
        while not self.witnessed.empty():
            self.law.see(self.witnessed.get_nowait(), unheard=self.unheard, dead=self.dead)

    @invariant()
    def every_answer_is_true(self) -> None:
        for answer in tuple(self.outcomes):
            call, kind, outcome = answer
            stored = outcome.stored if isinstance(outcome, Submitted) else outcome
            if isinstance(stored, Stored):
                if stored.revision not in self.law.revisions:
                    assert stored.revision > max(self.law.revisions, default=0), "told of what never was"
                    continue  # the witness is behind; later
                assert self.law.revisions[stored.revision] == stored.job
                self._judge_acknowledged(call, kind, outcome, stored)
            elif isinstance(outcome, NOT_DONE):
                assert call not in self.law.calls, "what was refused was done"
            elif isinstance(outcome, Exception) and not isinstance(outcome, BusUnavailable):
                raise outcome
            self.outcomes.remove(answer)

    def _judge_acknowledged(self, call: str, kind: str, outcome: Outcome, stored: Stored) -> None:
        if isinstance(outcome, Submitted):
            self.acknowledged[stored.job.id] = stored.revision
            assert outcome.existing == (self.law.first_op[stored.job.id] != call)
        elif kind == "cancel":
            assert stored.job.cancel or stored.job.state.terminal
            if not stored.job.state.terminal:
                self.cancelled.add(stored.job.id)

    @invariant()
    def no_acknowledged_job_is_lost(self) -> None:
        assert self.acknowledged.keys() <= self.law.latest.keys()

    @invariant()
    def every_mirror_that_caught_up_equals_the_table(self) -> None:
        for process in self.awake():
            mirror = process.mirror
            if mirror.revision < max(self.law.revisions, default=0) or not self.witnessed.empty():
                continue
            expected = {job_id: (each.job, each.revision) for job_id, each in self.law.latest.items()}
            assert {job.id: (job, mirror.revision_of(job.id)) for job in mirror} == expected
            jobs = [job for job, _ in expected.values()]
            assert mirror.running == {job.id: job for job in jobs if job.state is JobState.RUNNING}
            assert mirror.queued == {job.id: job for job in jobs if job.state is JobState.QUEUED}
            room = WaitingRoom()
            for job in jobs:
                room.update(job.id, job)
            assert [mirror.waiting.depth(lane) for lane in Lane] == [room.depth(lane) for lane in Lane]

    # -- the end: once the faults are over, every acknowledged job ends

    def teardown(self) -> None:
        try:
            if self.gateways:
                self._come_to_an_end()
        finally:
            self.run(self._close())
            self.loop.close()

    def _come_to_an_end(self) -> None:
        self.the_frozen_wake(wait=True)
        for worker in list(self.workers.values()):
            self.dead.add(worker.name)
            self.run(worker.die())
        self.workers.clear()
        self.time_passes(LEASE_S + 3)
        self.what_was_on_its_way_arrives()
        self.run(self._open_worker("last.1"))
        for _ in range(2 * len(self.law.latest) + 2):
            self.claims(0, None, None)
            for held in self.workers["last.1"].held:
                change = partial(complete, held=held, outputs=[OUTPUT], meta=None)
                self._apply(self.workers["last.1"], "complete", held.job_id, change)
            self.workers["last.1"].held.clear()
            self.the_table_is_lawful()
        self.every_answer_is_true()
        self.every_mirror_that_caught_up_equals_the_table()
        assert not self.outcomes
        for job_id in self.acknowledged:
            job = self.law.latest[job_id].job
            late = job.start_by is not None or job.finish_by is not None
            assert job.state.terminal or (late and not self.world.has_leases)
        for job_id in self.cancelled:
            assert self.law.latest[job_id].job.state is JobState.CANCELLED

    async def _close(self) -> None:
        for process in (*self.gateways.values(), *self.workers.values()):
            process.bucket.thaw()
            await process.die()
        await self.stack.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _stop(job: Job, held: Claim, *, now: float) -> Job | None:
    return cancel_finished(job, held, outputs=(), meta=None, now=now) if job.cancel else None


def test_a_table_of_jobs_stays_lawful_whatever_happens_to_its_writers() -> None:
    run_state_machine_as_test(
        lambda: JobTable(Memory()),
        settings=settings(max_examples=60, stateful_step_count=50, deadline=None, derandomize=True),
    )


def test_a_table_of_jobs_on_a_real_server_does_too(shared_nats_server: NatsServer) -> None:
    run_state_machine_as_test(
        lambda: JobTable(Real(shared_nats_server.url)),
        settings=settings(
            max_examples=3,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
