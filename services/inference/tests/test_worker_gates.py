"""What keeps a worker from claiming, what ends a job under it, and that no fault of its own leaves one hanging."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from msgspec.structs import replace

from reverie_jobs.controls import CONTROLS, change_controls
from reverie_jobs.reaper import Reaper
from reverie_protocol.controls import Gate, QueueControlPatch
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import ComfyParams, GenerateParams, Job, JobState, JobType, Lane
from reverie_runtime.clock import SystemClock

_serial = itertools.count()
PAUSED, DRAINING, OPEN = Gate(paused=True), Gate(draining=True), Gate()


@pytest.fixture
async def close(world: Any) -> Any:
    """Closes gates as a gateway does; all are open afterwards."""
    bucket = await world.bus.bucket(CONTROLS)

    async def change(**gates: Any) -> None:
        await change_controls(bucket, QueueControlPatch(**gates))

    yield change
    await bucket.delete("queue")


async def submitted(world: Any, **record: Any) -> str:
    """A job of one step with these fields in its record; its id."""
    now = time.time()
    job = Job(
        id=f"gated-{next(_serial)}",
        owner="somebody",
        type=JobType.GENERATE,
        state=JobState.QUEUED,
        params=GenerateParams(prompt="a red cat", size="64x64", num_inference_steps=1, seed=7),
        created_at=now,
        enqueued_at=now,
        updated_at=now,
    )
    return str((await world.store.submit(replace(job, **record))).stored.job.id)


@pytest.mark.parametrize(
    "gates",
    [
        {"queue": PAUSED},
        {"workers": {"worker": PAUSED}},
        {"workers": {"worker": DRAINING}},
        {"lanes": {"normal": PAUSED}},
    ],
)
async def test_a_closed_gate_keeps_jobs_waiting_until_it_opens(
    world: Any, models: Any, close: Any, gates: dict[str, Any]
) -> None:
    await close(**gates)
    async with world.worker(models["sd15"]) as worker:
        waiting = await submitted(world)
        if "lanes" in gates:  # another lane goes on
            await world.ended(await submitted(world, priority=Lane.BATCH))
        async with asyncio.timeout(30):
            while worker._jobs.get(waiting) is None:
                await asyncio.sleep(0.01)
        assert worker._next() is None
        assert worker._jobs.get(waiting).state is JobState.QUEUED
        await close(
            **{kind: OPEN if kind == "queue" else dict.fromkeys(gate, OPEN) for kind, gate in gates.items()}
        )
        assert (await world.ended(waiting)).state is JobState.COMPLETED


async def test_a_draining_lane_and_another_workers_gate_keep_nothing_waiting(
    world: Any, models: Any, close: Any
) -> None:
    await close(lanes={"normal": DRAINING}, workers={"another": PAUSED})
    async with world.worker(models["sd15"]):
        assert (await world.ended(await submitted(world))).state is JobState.COMPLETED


async def test_a_job_that_runs_when_the_queue_is_paused_is_finished(
    world: Any, models: Any, gate: Any, close: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate):
        job_id = await world.submit()
        await world.runs(job_id)
        await close(queue=PAUSED)
        gate.open()
        assert (await world.ended(job_id)).state is JobState.COMPLETED


async def test_a_job_whose_time_is_over_is_left_at_the_next_step(world: Any, models: Any, gate: Any) -> None:
    async with (
        world.worker(models["sd15"], gate=gate) as worker,
        Reaper(world.bus, world.store, world.jobs, clock=SystemClock()).run(),
    ):
        job_id = await world.submit(num_inference_steps=50)
        await world.runs(job_id)
        limit = time.time() + 0.2
        await world.store.apply(job_id, lambda job: replace(job, finish_by=limit))
        job = await world.ended(job_id)
        assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.DEADLINE_EXCEEDED)
        gate.let(1)
        async with asyncio.timeout(30):
            while worker.running or worker._runs:
                await asyncio.sleep(0.01)
        assert (await world.store.get(job_id)).job == job
        gate.open()
        assert (await world.ended(await world.submit())).state is JobState.COMPLETED


async def test_a_record_that_makes_no_sense_fails_by_name_and_keeps_no_slot(world: Any, models: Any) -> None:
    async with world.worker(models["sd15"], slots=1):
        job = await world.ended(await submitted(world, params=ComfyParams(workflowId="x")))
        assert (job.state, job.error.code, job.error.retryable) == (
            JobState.FAILED,
            ErrorCode.INTERNAL,
            True,
        )
        assert (await world.ended(await submitted(world))).state is JobState.COMPLETED


async def test_a_fault_of_ours_after_the_last_step_fails_the_job_and_the_worker_serves_the_next(
    world: Any, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.worker(models["sd15"]) as worker:
        with monkeypatch.context() as broken:
            broken.setattr(worker._delivery, "_storage", None)
            job = await world.ended(await submitted(world))
        assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.INTERNAL)
        assert "NoneType" not in job.error.message
        assert (await world.ended(await submitted(world))).state is JobState.COMPLETED
