"""A worker with a `modes.yml`: what it offers, how it changes, and what a switch does to the jobs behind it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from reverie_jobs.submission import switch_job
from reverie_protocol.jobs import Job, JobState, Lane, WorkerState
from reverie_protocol.subjects import ModesReloaded, worker_modes


def written(world: Any, model_folders: dict[str, Path], text: str) -> Path:
    """A modes file whose `small` and `large` are the tiny models."""
    path: Path = world.folder / "modes.yml"
    path.write_text(text.format(**model_folders, root=world.folder))
    # A file system may count seconds: a later version has to be told apart from this one.
    os.utime(path, ns=(time.time_ns(), time.time_ns()))
    return path


BOTH = "modes: {{small: {{model: '{sd15}', default_steps: 2}}, large: {{model: '{sdxl}', default_steps: 2}}}}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def switched(world: Any, worker: Any, mode: str) -> Job:
    name = worker.standing.outline.name
    job = switch_job(mode, worker=name, owner="somebody", now=time.time(), random_bits=lambda bits: bits)
    await world.store.submit(job)
    return await world.ended(job.id)


async def test_jobs_get_the_mode_they_name_and_else_the_one_that_was_switched_to(
    world: Any, model_folders: Any
) -> None:
    path = written(world, model_folders, BOTH)
    async with world.worker("", modes=str(path)) as worker:
        assert list(worker.standing.record().modes) == ["small", "large"]
        assert not worker.standing.record().modes["large"].loaded
        first = await world.ended(await world.submit(num_inference_steps=None))
        assert (first.meta.mode, first.meta.steps) == ("small", 2)
        told, tell = [], worker.on_change
        worker.on_change = lambda: (told.append(worker.standing.outline), tell())
        named = await world.ended(await world.submit(mode="large", num_inference_steps=1))
        loads = [record.load_progress for record in told if record.loading == "large"]
        assert loads == sorted(loads)
        assert loads[0] == 0.0
        assert any(0 < progress < 1 for progress in loads)
        assert told[-1].load_progress == 0.0
        assert (named.state, named.meta.mode) == (JobState.COMPLETED, "large")
        assert not worker.standing.record().loading
        assert (await world.ended(await world.submit())).meta.mode == "small"
        job = await switched(world, worker, "large")
        assert (job.state, job.meta.mode, job.outputs) == (JobState.COMPLETED, "large", ())
        assert (await world.ended(await world.submit())).meta.mode == "large"
        await until(lambda: worker.standing.record().mode == "large")
        assert {model.model for model in worker.standing.record().models} == {
            model_folders["sd15"].name,
            model_folders["sdxl"].name,
        }


async def test_a_job_whose_model_is_not_loaded_waits_while_a_more_urgent_one_runs(
    world: Any, model_folders: Any
) -> None:
    path = written(world, model_folders, BOTH)
    async with world.worker("", modes=str(path), slots=4) as worker:
        urgent = await world.submit(num_inference_steps=150, size="256x256")
        await world.runs(urgent)
        far = await world.submit(mode="large", priority=Lane.BACKGROUND)
        near = await world.submit(mode="small", priority=Lane.BACKGROUND)
        await world.runs(near)
        assert world.jobs.get(far).state is JobState.QUEUED
        assert not worker.standing.record().modes["large"].loaded
        await world.cancel(urgent)
        assert (await world.ended(far)).state is JobState.COMPLETED


async def test_a_switch_outlives_its_worker(world: Any, model_folders: Any) -> None:
    path = written(world, model_folders, BOTH)
    async with world.worker("", modes=str(path)) as worker:
        assert (await switched(world, worker, "large")).state is JobState.COMPLETED
    async with world.worker("", modes=str(path)) as worker:
        record = worker.standing.record()
        assert (record.mode, record.default_mode) == ("large", "small")


async def test_a_mode_without_its_files_is_listed_with_the_reason_and_the_worker_serves_the_others(
    world: Any, model_folders: Any
) -> None:
    text = "default_mode: gone\nmodes: {{gone: {{model: '{root}/gone'}}, small: {{model: '{sd15}'}}}}"
    async with world.worker("", modes=str(written(world, model_folders, text))) as worker:
        record = worker.standing.record()
        assert record.state is WorkerState.READY
        assert list(record.modes) == ["small"]
        assert "is not there" in record.unavailable["gone"]
        job = await world.ended(await world.submit(mode="small"))
        assert job.state is JobState.COMPLETED
        nameless = await world.ended(await world.submit())
        assert nameless.error.code == "model_load_failed"


async def test_a_changed_file_changes_the_modes_and_a_broken_one_nothing(
    world: Any, model_folders: Any
) -> None:
    path = written(world, model_folders, BOTH)
    async with world.worker("", modes=str(path)) as worker:
        written(world, model_folders, "modes: {{only: {{model: '{sd15}', default_steps: 1}}}}")
        await until(lambda: list(worker.standing.record().modes) == ["only"])
        assert (await world.ended(await world.submit(num_inference_steps=None))).meta.steps == 1
        written(world, model_folders, "modes: [broken")
        reply = await world.bus.request(worker_modes(worker.standing.key), b"", timeout=5)
        answer = msgspec.json.decode(reply.data, type=ModesReloaded)
        assert "modes.yml is not valid YAML" in answer.error
        assert list(worker.standing.record().modes) == ["only"]
        written(world, model_folders, BOTH)
        reply = await world.bus.request(worker_modes(worker.standing.key), b"", timeout=5)
        assert msgspec.json.decode(reply.data, type=ModesReloaded).modes == ("small", "large")
        await until(lambda: list(worker.standing.record().modes) == ["small", "large"])


async def test_models_that_are_not_pinned_leave_after_a_while_without_work(
    world: Any, model_folders: Any
) -> None:
    text = "modes: {{small: {{model: '{sd15}', pinned: true}}, large: {{model: '{sdxl}'}}}}"
    path = written(world, model_folders, text)
    async with world.worker("", modes=str(path), idle_unload_s=0.2) as worker:
        await world.ended(await world.submit(mode="large", num_inference_steps=1))
        await until(lambda: [m.modes for m in worker.standing.record().models] == [("small",)])
        assert not worker.standing.record().modes["large"].loaded


async def test_jobs_that_wait_for_a_mode_that_turns_out_broken_fail_with_its_reason(
    world: Any, model_folders: Any
) -> None:
    (world.folder / "broken.safetensors").write_bytes(b"no model")
    text = "modes: {{small: {{model: '{sd15}'}}, bad: {{model: '{root}/broken.safetensors'}}}}"
    path = written(world, model_folders, text)
    async with world.worker("", modes=str(path)) as worker:
        jobs = [await world.submit(mode="bad") for _ in range(3)]
        ended = [await world.ended(job_id) for job_id in jobs]
        assert [job.error.code for job in ended] == ["model_load_failed"] * 3
        record = worker.standing.record()
        assert "broken.safetensors" in record.unavailable["bad"]
        assert not record.loading
        assert (await world.ended(await world.submit())).state is JobState.COMPLETED


async def test_a_file_whose_only_mode_is_missing_is_served_once_the_model_is_there(
    world: Any, model_folders: Any
) -> None:
    path = written(world, model_folders, "modes: {{only: {{model: '{root}/later'}}}}")
    async with world.worker("", modes=str(path)) as worker:
        assert worker.standing.record().state is WorkerState.READY
        assert (await world.ended(await world.submit(mode="only"))).error.code == "model_load_failed"
        (world.folder / "later").symlink_to(model_folders["sd15"])
        reply = await world.bus.request(worker_modes(worker.standing.key), b"", timeout=5)
        assert not msgspec.json.decode(reply.data, type=ModesReloaded).error
        await until(lambda: list(worker.standing.record().modes) == ["only"])
        assert (await world.ended(await world.submit(mode="only"))).state is JobState.COMPLETED
