"""The reaper at work, on the bus in memory and in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import pytest
from msgspec.structs import replace

from reverie_jobs.mirror import WORKERS, JobMirror, WorkerMirror, follow
from reverie_jobs.reaper import LEASE_S, Reaper, requeue_former_self, withdraw_former_self
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import claim
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import ComfyParams, GenerateParams, Job, JobState, JobType, Worker, WorkerState
from reverie_protocol.subjects import worker_key, worker_ping
from reverie_runtime.bus.memory import MemoryBus, MemoryServer
from reverie_runtime.bus.port import Message
from reverie_testing.clock import VirtualClock


class Scene:
    """A gateway's reaper on one connection, workers on another."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.server = MemoryServer(clock)
        self.bus = MemoryBus(self.server)
        self.workers_bus = MemoryBus(self.server)
        self.jobs = JobMirror()

    async def open(self, stack: AsyncExitStack) -> None:
        bucket = await self.bus.bucket(JOBS)
        numbers = itertools.count()
        self.store = JobStore(bucket, new_op=lambda: str(next(numbers)))
        await stack.enter_async_context(follow(self.jobs, bucket))

    async def reap(self, stack: AsyncExitStack) -> None:
        reaper = Reaper(self.bus, self.store, self.jobs, clock=self.clock)
        await stack.enter_async_context(reaper.run())

    async def running_job(self, id_: str = "j", worker: str = "w.1", **limits: float) -> None:
        await self.store.submit(replace(_JOB, id=id_, **limits))
        await self.store.apply(id_, partial(claim, worker=worker, now=self.clock.time()))

    async def state(self, id_: str = "j") -> Job:
        stored = await self.store.get(id_)
        assert stored is not None
        return stored.job


_JOB = Job(
    id="j",
    owner="u",
    type=JobType.GENERATE,
    state=JobState.QUEUED,
    params=GenerateParams(prompt="p"),
    created_at=1,
    enqueued_at=1,
    updated_at=1,
)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def scene(stack: AsyncExitStack) -> Scene:
    made = Scene(VirtualClock())
    await made.open(stack)
    return made


async def alive(scene: Scene, worker: str) -> None:
    async def answer(message: Message) -> None:
        await scene.workers_bus.publish(message.reply, b"")

    await scene.workers_bus.subscribe(worker_ping(worker), answer)


async def test_the_job_of_a_worker_that_is_gone_is_queued_again_well_before_its_lease_ends(
    scene: Scene, stack: AsyncExitStack
) -> None:
    await scene.reap(stack)
    await scene.clock.advance(LEASE_S + 1)
    await scene.running_job()
    await scene.clock.advance(0.6)
    job = await scene.state()
    assert (job.state, job.crashes) == (JobState.QUEUED, 1)


async def test_the_job_of_a_worker_that_answers_is_left_alone(scene: Scene, stack: AsyncExitStack) -> None:
    await alive(scene, "w.1")
    await scene.reap(stack)
    await scene.running_job()
    await scene.clock.advance(30)
    assert (await scene.state()).state is JobState.RUNNING


async def test_a_job_whose_workers_freeze_and_come_back_is_never_taken_for_a_killer(
    scene: Scene, stack: AsyncExitStack
) -> None:
    await scene.reap(stack)
    await scene.clock.advance(LEASE_S + 1)
    frozen = ""

    async def answer(message: Message) -> None:
        if not message.subject.endswith(frozen):
            await scene.workers_bus.publish(message.reply, b"")

    for number in range(1, 7):
        frozen = f".{number}"
        await scene.workers_bus.subscribe(worker_ping(f"w.{number}"), answer)
        if number == 1:
            await scene.running_job(worker="w.1")
        else:
            worker = f"w.{number}"
            await scene.store.apply("j", partial(claim, worker=worker, now=scene.clock.time()))
        await scene.clock.advance(LEASE_S + 0.5)
        job = await scene.state()
        assert (job.state, job.lost_workers[-1]) == (JobState.QUEUED, f"w.{number}")
    assert (await scene.state()).crashes < 3


async def test_a_job_whose_workers_die_fails_at_the_third(scene: Scene, stack: AsyncExitStack) -> None:
    await scene.reap(stack)
    await scene.clock.advance(LEASE_S + 1)
    await scene.running_job(worker="w.1")
    await scene.clock.advance(0.6)
    for number in (2, 3):
        assert (await scene.state()).state is JobState.QUEUED
        await scene.store.apply("j", partial(claim, worker=f"w.{number}", now=scene.clock.time()))
        await scene.clock.advance(0.6)
    job = await scene.state()
    assert job.error is not None
    assert job.error.code == ErrorCode.CRASH_LOOP


async def test_a_comfyui_job_outlives_its_bridge_as_often_as_that_dies(
    scene: Scene, stack: AsyncExitStack
) -> None:
    await scene.reap(stack)
    await scene.clock.advance(LEASE_S + 1)
    comfy = replace(_JOB, type=JobType.COMFY, params=ComfyParams(workflowId="w"))
    await scene.store.submit(comfy)
    for number in range(8):
        await scene.store.apply("j", partial(claim, worker=f"comfy-{number}.1", now=scene.clock.time()))
        await scene.clock.advance(0.6)
        job = await scene.state()
        assert (job.state, job.lost_workers) == (JobState.QUEUED, ())


async def test_the_silence_of_one_worker_does_not_delay_the_verdict_on_another(
    scene: Scene, stack: AsyncExitStack
) -> None:
    async def say_nothing(message: Message) -> None:
        return

    await scene.workers_bus.subscribe(worker_ping("frozen.1"), say_nothing)
    await scene.reap(stack)
    await scene.running_job("held", worker="frozen.1")
    await scene.clock.advance(LEASE_S - 1)
    await scene.running_job("lost", worker="gone.1")
    await scene.clock.advance(1.2)
    assert (await scene.state("lost")).state is JobState.QUEUED


async def test_after_the_server_was_away_nobody_is_declared_dead_for_a_lease(
    scene: Scene, stack: AsyncExitStack
) -> None:
    await scene.reap(stack)
    await scene.clock.advance(LEASE_S + 1)
    scene.server.kill()
    await scene.clock.advance(60)
    scene.server.restart()
    await scene.clock.settle()
    await scene.running_job()
    await scene.clock.advance(LEASE_S - 0.5)
    assert (await scene.state()).state is JobState.RUNNING
    await scene.clock.advance(1)
    assert (await scene.state()).state is JobState.QUEUED


async def test_a_job_that_is_not_done_in_time_fails_as_such(scene: Scene, stack: AsyncExitStack) -> None:
    await alive(scene, "w.1")
    await scene.reap(stack)
    await scene.running_job(finish_by=scene.clock.time() + 10)
    await scene.clock.advance(9)
    assert (await scene.state()).state is JobState.RUNNING
    await scene.clock.advance(2)
    job = await scene.state()
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == ErrorCode.DEADLINE_EXCEEDED


async def test_at_boot_a_worker_gives_back_what_its_former_self_left_running(scene: Scene) -> None:
    await scene.running_job("mine", worker="w.1")
    await scene.running_job("other", worker="x.1")
    await scene.clock.settle()
    await requeue_former_self(scene.bus, scene.store, scene.jobs, name="w", now=scene.clock.time())
    assert (await scene.state("mine")).state is JobState.QUEUED
    assert (await scene.state("other")).state is JobState.RUNNING


async def test_at_boot_a_worker_takes_back_the_record_of_its_former_self_and_no_other(scene: Scene) -> None:
    bucket = await scene.bus.bucket(WORKERS)
    records = [
        Worker(name=name, incarnation=incarnation, service="inference", state=WorkerState.READY)
        for name, incarnation in (("w", "old"), ("w", "twin"), ("w", "new"), ("x", "old"))
    ]
    for record in records:
        await bucket.put(worker_key(record.name, record.incarnation), msgspec.json.encode(record))
    await alive(scene, "w.twin")
    workers = WorkerMirror()
    async with follow(workers, bucket):
        await withdraw_former_self(scene.bus, bucket, workers, name="w", now_running="w.new")
        await scene.clock.settle()
        assert {f"{worker.name}.{worker.incarnation}" for worker in workers} == {"w.twin", "w.new", "x.old"}


async def test_at_boot_a_worker_leaves_a_living_namesake_its_jobs(scene: Scene) -> None:
    await alive(scene, "w.1")
    await scene.running_job("mine", worker="w.1")
    await scene.clock.settle()
    await requeue_former_self(scene.bus, scene.store, scene.jobs, name="w", now=scene.clock.time())
    assert (await scene.state("mine")).state is JobState.RUNNING
