"""Lanes inside a worker: who is claimed although all slots are taken, and who goes first once they run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import numpy as np

from reverie_inference.worker.checkpoints import CHECKPOINTS
from reverie_jobs.transitions import reprioritise
from reverie_protocol.jobs import JobState, Lane, Progress
from reverie_protocol.subjects import CheckpointHead
from reverie_runtime.bus.port import Entry


async def steps_of(told: asyncio.Queue[Any], job_id: str, step: int) -> None:
    async with asyncio.timeout(60):
        while True:
            progress = msgspec.json.decode((await told.get()).data, type=Progress)
            if progress.job_id == job_id and progress.step >= step:
                return


async def test_an_urgent_job_is_taken_although_background_jobs_fill_the_slots_and_ends_first(
    world: Any, models: Any, gate: Any
) -> None:
    told = await world.listen("job.progress.*")
    async with world.worker(models["sd15"], gate=gate, slots=1):
        dream = await world.submit(num_inference_steps=20, priority=Lane.BACKGROUND)
        gate.let(2)
        await steps_of(told, dream, 1)
        urgent = await world.submit(num_inference_steps=2, priority=Lane.URGENT)
        await world.runs(urgent)
        gate.let(4)
        assert (await world.ended(urgent)).state is JobState.COMPLETED
        assert world.jobs.get(dream).state is JobState.RUNNING
        gate.open()
        assert (await world.ended(dream)).attempt == 1


async def test_no_more_of_a_lane_is_taken_than_there_are_slots(world: Any, models: Any, gate: Any) -> None:
    async with world.worker(models["sd15"], gate=gate, slots=2) as worker:
        jobs = [await world.submit(num_inference_steps=2) for _ in range(3)]
        await world.runs(jobs[0])
        await world.runs(jobs[1])
        urgent = await world.submit(num_inference_steps=1, priority=Lane.URGENT)
        await world.runs(urgent)
        assert set(worker.running) == {jobs[0], jobs[1], urgent}
        gate.open()
        assert [(await world.ended(job)).state for job in (*jobs, urgent)] == [JobState.COMPLETED] * 4


async def test_moving_a_running_job_to_another_lane_acts_at_its_next_step(
    world: Any, models: Any, gate: Any
) -> None:
    told = await world.listen("job.progress.*")
    async with world.worker(models["sd15"], gate=gate, slots=1):
        dream = await world.submit(num_inference_steps=6, priority=Lane.BACKGROUND)
        gate.let(2)
        await steps_of(told, dream, 1)
        other = await world.submit(num_inference_steps=6, priority=Lane.NORMAL)
        await world.runs(other)
        gate.let(3)
        await steps_of(told, other, 1)
        await world.store.apply(
            dream, lambda job: reprioritise(job, lane=Lane.URGENT, position=None, now=time.time())
        )
        await world.until(dream, lambda job: job.priority is Lane.URGENT)
        gate.open()
        await world.ended(dream)
        assert world.jobs.get(other).state is JobState.RUNNING
        await world.ended(other)


async def test_another_worker_goes_on_from_where_a_lost_one_was(world: Any, models: Any, gate: Any) -> None:
    told = await world.listen("job.progress.*")
    job = await world.submit(num_inference_steps=12)
    async with world.worker(models["sd15"], gate=gate, name="lost", checkpoint_steps=3, deadline_s=0.0):
        gate.let(8)
        await steps_of(told, job, 8)
        await checkpoint_of(world, job, 6)
    steps: list[int] = []
    handle = models["sd15"].pipeline.unet.register_forward_pre_hook(lambda *_: steps.append(1))
    async with world.worker(models["sd15"], name="next"):
        ended = await world.ended(job)
    handle.remove()
    assert (ended.state, ended.attempt) == (JobState.COMPLETED, 2)
    assert len(steps) <= 6  # it may have come to another checkpoint before it ended
    async with world.worker(models["sd15"]):
        alone = await world.ended(await world.submit(num_inference_steps=12))
    pictures = [np.asarray(await world.picture(each.outputs[0].key)) for each in (ended, alone)]
    assert np.array_equal(*pictures)
    assert await (await world.bus.bucket(CHECKPOINTS)).get(job) is None


async def checkpoint_of(world: Any, job_id: str, step: int) -> None:
    bucket = await world.bus.bucket(CHECKPOINTS)
    async with asyncio.timeout(60), bucket.watch() as events:
        async for event in events:
            if not isinstance(event, Entry) or event.key != job_id or event.value is None:
                continue
            if msgspec.json.decode(event.value, type=CheckpointHead).step >= step:
                return
