"""A worker on a real bus with a real (tiny) model: what it claims, tells, delivers and gives back."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from reverie_inference.models.loaded import LoadedModel
from reverie_jobs.transitions import Claim, claim, requeue
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import Job, JobState, Phase, Progress, WorkerState
from reverie_protocol.preview import decode_preview
from reverie_protocol.subjects import (
    WorkerHint,
    job_preview,
    job_watch,
    worker_ctl,
    worker_ping,
)
from reverie_runtime.bus.port import Message, NoResponders


async def heard(queue: asyncio.Queue[Message]) -> Message:
    async with asyncio.timeout(30):
        return await queue.get()


async def progress_until(queue: asyncio.Queue[Message], step: int) -> Progress:
    while True:
        progress = msgspec.json.decode((await heard(queue)).data, type=Progress)
        if progress.step >= step:
            return progress


async def until(condition: Any) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_job_becomes_a_stored_picture_with_its_parameters(world: Any, models: Any) -> None:
    async with world.worker(models["sd15"]) as worker:
        job = await world.ended(await world.submit(negative_prompt="ugly"))
    assert job.state is JobState.COMPLETED, job.error
    assert (job.attempt, job.worker) == (1, worker.standing.key)
    (output,) = job.outputs
    picture = await world.picture(output.key)
    assert picture.size == (output.width, output.height) == (64, 64)
    assert picture.info["parameters"].startswith("a red cat\nNegative prompt: ugly\nSteps: 3, Sampler: DDIM")
    assert output.url == f"/storage/{output.key}"
    assert job.meta is not None
    assert (job.meta.seed, job.meta.steps, job.meta.size) == (7, 3, "64x64")


async def test_the_number_of_steps_is_known_from_the_first_of_them_on(world: Any, models: Any) -> None:
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await world.bus.subscribe("job.progress.*", queue.put_nowait)
    async with world.worker(models["sd15"]):
        await world.ended(await world.submit(num_inference_steps=40))
    told = [msgspec.json.decode(queue.get_nowait().data, type=Progress) for _ in range(queue.qsize())]
    denoising = [progress for progress in told if progress.phase is Phase.DENOISING]
    assert denoising
    assert {progress.steps for progress in denoising} == {40}


async def test_the_picture_is_that_of_the_bare_pipeline(world: Any, models: Any) -> None:
    import torch

    model: LoadedModel = models["sdxl"]
    expected = model.pipeline(
        "a red cat",
        width=64,
        height=64,
        num_inference_steps=3,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    async with world.worker(model):
        job = await world.ended(await world.submit(guidance_scale=5.0))
    picture = await world.picture(job.outputs[0].key)
    assert np.array_equal(np.array(picture), np.array(expected))


async def test_metadata_can_be_switched_off(world: Any, models: Any) -> None:
    async with world.worker(models["sd15"], metadata=False):
        job = await world.ended(await world.submit())
    assert "parameters" not in (await world.picture(job.outputs[0].key)).info


async def test_a_job_without_a_seed_gets_one_that_does_not_depend_on_the_attempt(
    world: Any, models: Any
) -> None:
    async with world.worker(models["sd15"]):
        first = await world.ended(await world.submit(seed=None))
    assert first.meta.seed > 0


async def test_progress_never_falls_counts_steps_and_is_repeated_while_nothing_happens(
    world: Any, models: Any, gate: Any
) -> None:
    told = await world.listen("job.progress.*")
    async with world.worker(models["sd15"], gate=gate):
        job_id = await world.submit(num_inference_steps=4)
        gate.let(2)
        first = await progress_until(told, 2)
        again = msgspec.json.decode((await heard(told)).data, type=Progress)
        assert (again.step, again.steps, again.phase) == (first.step, 4, Phase.DENOISING)
        assert again.job_id == job_id
        gate.open()
        await world.ended(job_id)
    fractions = [first.progress, again.progress]
    while not told.empty():
        fractions.append(msgspec.json.decode(told.get_nowait().data, type=Progress).progress)
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 1


async def test_a_cancelled_job_stops_at_its_next_step_and_keeps_what_it_has_drawn(
    world: Any, models: Any, gate: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate):
        told = await world.listen("job.progress.*")
        job_id = await world.submit(num_inference_steps=50)
        gate.let(2)
        await progress_until(told, 2)
        await world.cancel(job_id)
        gate.let(1)
        job = await world.ended(job_id)
    assert job.state is JobState.CANCELLED
    assert job.partial
    assert job.outputs[0].partial
    picture = await world.picture(job.outputs[0].key)
    assert picture.size == (64, 64)
    assert "Partial: True" in picture.info["parameters"]


async def test_a_hint_makes_the_worker_look_at_the_record(world: Any, models: Any, gate: Any) -> None:
    async with world.worker(models["sd15"], gate=gate) as worker:
        job_id = await world.submit(num_inference_steps=50)
        await world.runs(job_id)
        await world.cancel(job_id)
        hint = msgspec.json.encode(WorkerHint(job_id))
        await world.bus.publish(worker_ctl(worker.standing.key), hint)
        await world.bus.publish(worker_ctl(worker.standing.key), b"no hint")
        gate.let(1)
        assert (await world.ended(job_id)).state is JobState.CANCELLED


async def test_a_job_cancelled_before_its_first_step_leaves_no_picture(
    world: Any, models: Any, gate: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate):
        first = await world.submit()
        await world.runs(first)
        await world.cancel(first)
        gate.open()
        job = await world.ended(first)
    assert job.state is JobState.CANCELLED
    assert job.partial == bool(job.outputs)


async def test_a_worker_that_lost_its_claim_stops_and_writes_nothing(
    world: Any, models: Any, gate: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate) as worker:
        job_id = await world.submit(num_inference_steps=50)
        held = await world.runs(job_id)
        own = Claim(job_id, held.worker, held.attempt)

        def give_to_another(job: Job) -> Job:
            # In one write, or this worker would be the one to claim it again.
            now = time.time()
            return claim(requeue(job, own, crashed=True, now=now), worker="other.1", now=now)

        await world.store.apply(job_id, give_to_another)
        gate.let(1)
        await until(lambda: not worker.running)
        record = (await world.store.get(job_id)).job
        assert (record.state, record.worker, record.attempt) == (JobState.RUNNING, "other.1", 2)
        gate.open()
        assert (await world.ended(await world.submit())).state is JobState.COMPLETED


async def test_a_worker_that_gets_its_own_lost_job_again_does_it(world: Any, models: Any, gate: Any) -> None:
    async with world.worker(models["sd15"], gate=gate):
        job_id = await world.submit()
        held = await world.runs(job_id)
        own = Claim(job_id, held.worker, held.attempt)

        def lose_and_claim_again(job: Job) -> Job:
            # As after a freeze: requeued by a reaper, and claimed by the same worker while its old run still ends.
            now = time.time()
            return claim(requeue(job, own, crashed=True, now=now), worker=own.worker, now=now)

        await world.store.apply(job_id, lose_and_claim_again)
        gate.open()
        job = await world.ended(job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)


async def test_a_job_whose_id_comes_again_after_its_record_was_purged_is_done(
    world: Any, models: Any
) -> None:
    async with world.worker(models["sd15"]):
        job_id = await world.submit()
        await world.ended(job_id)
        stored = await world.store.get(job_id)
        await world.store.purge(stored)
        again = replace(
            stored.job, state=JobState.QUEUED, attempt=0, worker=None, outputs=(), created_at=time.time()
        )
        await world.store.submit(again)
        job = await world.until(job_id, lambda job: job.created_at == again.created_at and job.state.terminal)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)


async def test_a_pipeline_that_takes_one_job_at_a_time_is_not_given_two(world: Any, models: Any) -> None:
    async with world.worker(models["own_loop"], slots=3) as worker:
        assert worker.standing.record().slots == 1
        jobs = [await world.submit(scheduler=None) for _ in range(3)]
        assert [(await world.ended(job_id)).state for job_id in jobs] == [JobState.COMPLETED] * 3


async def test_two_workers_share_the_work_and_each_job_is_done_once(world: Any, models: Any) -> None:
    async with world.worker(models["sd15"], name="one"), world.worker(models["sdxl"], name="two"):
        jobs = [await world.submit(num_inference_steps=1, seed=seed) for seed in range(8)]
        ended = [await world.ended(job_id) for job_id in jobs]
    assert all(job.state is JobState.COMPLETED and job.attempt == 1 for job in ended)


async def test_previews_are_made_only_while_somebody_watches(world: Any, models: Any, gate: Any) -> None:
    shown, told = await world.listen("job.preview.*"), await world.listen("job.progress.*")
    async with world.worker(models["tiny_vae"], gate=gate, preview_hz=30) as worker:
        job_id = await world.submit(num_inference_steps=30)
        gate.let(3)
        await progress_until(told, 3)
        assert shown.empty()
        await world.bus.publish(job_watch(job_id), b"")
        await until(lambda: worker._previews.leases.watched(job_id, now=0.0))
        # The request for a preview may reach the engine when the next step has begun.
        gate.let(3)
        message = await heard(shown)
        header, jpeg = decode_preview(message.data)
        assert message.subject == job_preview(job_id)
        assert (header.job_id, header.attempt, header.steps) == (job_id, 1, 30)
        assert header.step >= 4
        assert (header.width, header.height) == (64, 64)
        assert jpeg.startswith(b"\xff\xd8")
        gate.open()
        await world.ended(job_id)


async def test_a_wrong_request_fails_the_job_by_name_and_the_worker_serves_the_next(
    world: Any, models: Any
) -> None:
    async with world.worker(models["sd15"]):
        job = await world.ended(await world.submit(scheduler="Foo"))
        assert job.state is JobState.FAILED
        assert job.error.code == ErrorCode.INVALID_FIELD
        assert "Foo" in job.error.message
        assert (await world.ended(await world.submit())).state is JobState.COMPLETED


async def test_out_of_memory_and_any_fault_fail_the_job_and_the_worker_serves_the_next(
    world: Any, models: Any, gate: Any
) -> None:
    gate.open()
    async with world.worker(models["sd15"], gate=gate):
        for fault, code in (
            (MemoryError(), ErrorCode.OUT_OF_MEMORY),
            (KeyError("/secret"), ErrorCode.INFERENCE_FAILED),
        ):
            gate.fail_next(fault)
            job = await world.ended(await world.submit())
            assert (job.state, job.error.code) == (JobState.FAILED, code)
            assert "secret" not in job.error.message
        assert (await world.ended(await world.submit())).state is JobState.COMPLETED


async def test_a_job_for_which_others_left_too_little_memory_is_made_once_they_have_ended(
    world: Any, models: Any, gate: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate, slots=2) as worker:
        crowd = [await world.submit(size=size) for size in ("64x64", "64x96")]  # that share no step
        for job_id in crowd:
            await world.runs(job_id)
        gate.fail_next(MemoryError())
        gate.let(1)
        await until(lambda: any(world.jobs.get(job_id).state is JobState.QUEUED for job_id in crowd))
        assert worker._next() is None
        gate.open()
        jobs = [await world.ended(job_id) for job_id in crowd]
    told = sorted((job.attempt, job.state, job.crashes) for job in jobs)
    assert told == [(1, JobState.COMPLETED, 0), (2, JobState.COMPLETED, 0)]


async def test_a_model_that_cannot_be_loaded_fails_jobs_with_its_reason_and_the_worker_stays(
    world: Any, tmp_path: Path
) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"\x80\x04anything")
    async with world.worker(tmp_path / "broken.ckpt") as worker:
        assert worker.standing.state is WorkerState.BROKEN
        for _ in range(2):
            job = await world.ended(await world.submit())
            assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.UNSAFE_CHECKPOINT)
            assert "broken.ckpt" in job.error.message


async def test_a_broken_worker_leaves_jobs_to_those_who_can_do_them(
    world: Any, models: Any, tmp_path: Path
) -> None:
    async with world.worker(models["sd15"], name="good"), world.worker(tmp_path / "none", name="broken"):
        jobs = [await world.submit(num_inference_steps=1, seed=seed) for seed in range(5)]
        assert {(await world.ended(job_id)).state for job_id in jobs} == {JobState.COMPLETED}


async def test_the_record_says_what_the_worker_can_do_and_is_withdrawn_at_the_end(
    world: Any, models: Any
) -> None:
    async with world.worker(models["sd15"], name="painter") as worker:
        record = (await world.workers())[worker.standing.key]
        assert (record.name, record.state, record.service) == ("painter", WorkerState.READY, "inference")
        assert record.mode == "tiny-sd"
        assert record.modes["tiny-sd"].default_size == "64x64"
        assert {"Euler a", "DDIMScheduler"} <= set(record.schedulers)
        assert not record.superres
        await world.bus.request(worker_ping(worker.standing.key), b"", timeout=5)
    assert await world.workers() == {}
    with pytest.raises(NoResponders):
        await world.bus.request(worker_ping(worker.standing.key), b"", timeout=5)


async def test_draining_finishes_the_running_job_and_claims_no_other(
    world: Any, models: Any, gate: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate):
        first, second = await world.submit(), await world.submit()
        await world.runs(first)
    assert (await world.ended(first)).state is JobState.COMPLETED
    assert (await world.store.get(second)).job.state is JobState.QUEUED


async def test_draining_gives_back_what_does_not_finish_in_time_without_counting_a_crash(
    world: Any, models: Any
) -> None:
    import threading

    stuck = threading.Event()
    handle = models["sd15"].pipeline.unet.register_forward_pre_hook(lambda *_: stuck.wait(30) and None)
    async with world.worker(models["sd15"], deadline_s=2.0):
        job_id = await world.submit()
        await world.runs(job_id)
    record = (await world.store.get(job_id)).job
    stuck.set()
    handle.remove()
    assert (record.state, record.worker, record.crashes) == (JobState.QUEUED, None, 0)


async def test_a_finished_job_waits_for_a_killed_server_and_is_written_once(
    world: Any, models: Any, gate: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate) as worker:
        job_id = await world.submit()
        await until(lambda: job_id in worker._assignments)  # others may see it run before it heard so itself
        world.server.kill()
        try:
            gate.open()
            await until(worker._assignments[job_id].outcome.done)
        finally:
            world.server.start()  # without it a result is waited for without end
        job = await world.ended(job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    states = [past.job.state for past in await world.store.history(job_id)]
    assert states == [JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED]


async def test_a_claim_whose_reply_was_lost_is_run_all_the_same(world: Any, models: Any) -> None:
    async with world.worker(models["sd15"]) as worker:
        await world.bus.check(timeout=5)
        # As if our claim had been applied although its reply never came: the record alone says that it is ours.
        job_id = "job-ghost"
        now = time.time()
        template = (await world.ended(await world.submit())).params
        ghost = Job(
            id=job_id,
            owner="x",
            type="generate",
            state=JobState.RUNNING,
            worker=worker.standing.key,
            attempt=1,
            params=template,
            created_at=now,
            enqueued_at=now,
            updated_at=now,
        )
        bucket = world.store._bucket
        await bucket.create(job_id, msgspec.json.encode(replace(ghost, op="ghost")))
        assert (await world.ended(job_id)).state is JobState.COMPLETED


async def test_a_worker_that_comes_back_queues_what_its_former_self_left(world: Any, models: Any) -> None:
    job_id = await world.submit()
    await world.store.apply(job_id, partial(claim, worker="painter.gone", now=time.time()))
    async with world.worker(models["sd15"], name="painter"):
        job = await world.ended(job_id)
    assert (job.state, job.attempt, job.crashes) == (JobState.COMPLETED, 2, 1)


async def test_a_full_store_fails_the_job_retryably(
    world: Any, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverie_worker.patience.STORAGE_PATIENCE_S", 0.0)
    (world.folder / "storage").write_text("a file where the folder should be")
    async with world.worker(models["sd15"]):
        job = await world.ended(await world.submit())
    assert (job.error.code, job.error.retryable) == (ErrorCode.STORAGE_UNAVAILABLE, True)


async def test_several_slots_run_several_jobs_at_once_with_the_same_pictures(
    world: Any, models: Any, gate: Any
) -> None:
    async with world.worker(models["sd15"], gate=gate, slots=3) as worker:
        jobs = [await world.submit(seed=seed) for seed in range(3)]
        await until(lambda: len(worker.running) == 3)
        gate.open()
        keys = [(await world.ended(job_id)).outputs[0].key for job_id in jobs]
    async with world.worker(models["sd15"]):
        again = [await world.ended(await world.submit(seed=seed)) for seed in range(3)]
    pictures = [np.array(await world.picture(key), dtype=int) for key in keys]
    expected = [np.array(await world.picture(job.outputs[0].key), dtype=int) for job in again]
    apart = [np.abs(picture - other).max() for picture, other in zip(pictures, expected, strict=True)]
    assert max(apart) <= 2  # levels of 255: in company sums are made in another order


async def test_the_event_loop_is_never_held_up_by_the_model(world: Any, models: Any) -> None:
    handle = models["sd15"].pipeline.unet.register_forward_pre_hook(lambda *_: time.sleep(0.3))
    try:
        async with world.worker(models["sd15"]) as worker:
            job_id = await world.submit(num_inference_steps=3)
            await world.runs(job_id)
            for _ in range(20):
                await world.bus.request(worker_ping(worker.standing.key), b"", timeout=0.3)
            assert (await world.ended(job_id)).state is JobState.COMPLETED
    finally:
        handle.remove()


async def test_a_job_whose_accelerator_is_lost_goes_back_and_is_done_by_another_process(
    world: Any, models: Any
) -> None:
    # Nothing can be computed on the device "meta", whatever is asked of it next: as after a fault in a kernel.
    broken = dataclasses.replace(models["sd15"], device=torch.device("meta"))
    reasons: list[str] = []
    async with world.worker(broken, name="lost") as lost:
        lost.on_lost = reasons.append
        job_id = await world.submit()
        back = await world.until(job_id, lambda job: job.state is JobState.QUEUED and job.attempt == 1)
        assert (back.crashes, back.worker) == (1, None)
        assert "failed for good" in reasons[0]
        async with world.worker(models["sd15"], name="other"):
            job = await world.ended(job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)
    assert job.worker.startswith("other")


async def test_a_job_whose_pictures_do_not_come_is_cancelled_and_given_back_at_once(
    world: Any, models: Any
) -> None:
    (world.folder / "storage").write_text("no folder: the store is away")
    async with world.worker(models["sd15"], slots=2, deadline_s=3.0):
        cancelled, drained = [await world.submit(initImage=f"{'a' * 64}.png") for _ in range(2)]
        for job_id in (cancelled, drained):
            await world.runs(job_id)
        await world.cancel(cancelled)
        assert (await world.ended(cancelled)).state is JobState.CANCELLED
    back = await world.until(drained, lambda job: job.state is not JobState.RUNNING)
    assert (back.state, back.crashes) == (JobState.QUEUED, 0)
