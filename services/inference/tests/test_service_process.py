"""The service as operators run it: a process of its own, told by environment variables, ended by signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from reverie_jobs.reaper import Reaper
from reverie_protocol.jobs import JobState
from reverie_runtime.clock import SystemClock
from reverie_testing.product import free_port

SLOW_STEPS = 60


class ServiceProcess:
    """`python -m reverie_inference`, and its health address."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def ready(self) -> None:
        """Wait until `/ready` says yes."""
        async with asyncio.timeout(90), httpx.AsyncClient() as http:
            while True:
                assert self.process.returncode is None, "the service ended"
                try:
                    answer = await http.get(f"{self.url}/ready", timeout=5)
                except httpx.HTTPError:
                    answer = None
                if answer is not None and answer.status_code == 200:
                    return
                await asyncio.sleep(0.05)

    async def ended(self) -> int:
        """Its exit code once it has ended."""
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def service(world: Any, model: Path | str, **variables: str) -> AsyncIterator[ServiceProcess]:
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REVERIE_")}
    environment |= {
        "REVERIE_NATS__URL": world.server.url,
        "REVERIE_STORAGE__PATH": str(world.folder / "storage"),
        "REVERIE_INFERENCE__MODEL": str(model),
        "REVERIE_INFERENCE__NAME": "painter",
        "REVERIE_INFERENCE__THREADS": "1",
        "REVERIE_HEALTH__PORT": str(port),
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "reverie_inference", env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield ServiceProcess(process, f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_killed_worker_s_job_is_done_by_its_successor_once(world: Any, model_folders: Any) -> None:
    async with service(world, model_folders["sd15"]) as first:
        await first.ready()
        job_id = await world.submit(num_inference_steps=SLOW_STEPS)
        await world.runs(job_id)
        first.process.kill()
        await first.ended()
    reaper = Reaper(world.bus, world.store, world.jobs, clock=SystemClock())
    async with reaper.run(), service(world, model_folders["sd15"]):
        job = await world.ended(job_id)
    assert (job.state, job.attempt, job.crashes) == (JobState.COMPLETED, 2, 1)
    states = [past.job.state for past in await world.store.history(job_id)]
    assert states.count(JobState.COMPLETED) == 1


async def test_sigterm_finishes_the_running_job_and_ends_with_zero(world: Any, model_folders: Any) -> None:
    async with service(world, model_folders["sd15"]) as running:
        await running.ready()
        job_id = await world.submit(num_inference_steps=20)
        await world.runs(job_id)
        running.process.send_signal(signal.SIGTERM)
        assert (await world.ended(job_id)).state is JobState.COMPLETED
        assert await running.ended() == 0


async def test_sigterm_while_loading_ends_at_once(world: Any, model_folders: Any) -> None:
    async with service(world, model_folders["sd15"]) as running, httpx.AsyncClient() as http:
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await http.get(f"{running.url}/ready", timeout=5)
                except httpx.HTTPError:
                    await asyncio.sleep(0.01)
                else:
                    break
        assert answer.status_code == 503
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


async def test_a_model_that_cannot_be_loaded_is_said_by_ready_while_the_process_lives(world: Any) -> None:
    async with service(world, "/nowhere/model.ckpt") as running, httpx.AsyncClient() as http:
        async with asyncio.timeout(90):
            reason = ""
            while "pickled" not in reason:
                try:
                    answer = await http.get(f"{running.url}/ready", timeout=5)
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                    continue
                assert answer.status_code == 503
                reason = answer.json()["reasons"].get("model", "")
        assert "model.ckpt" in reason
        assert "/nowhere" not in reason
        assert (await http.get(f"{running.url}/health")).status_code == 200
        metrics = (await http.get(f"{running.url}/metrics")).text
        assert "reverie_inference_job_seconds" in metrics


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("REVERIE_INFERENCE__DEVICE", "gpu", "inference"),
        ("REVERIE_INFERENCE__SLOTS", "many", "integer"),
        ("REVERIE_INFERENCE__STEPS", "3", "steps"),
        ("REVERIE_INFERENCE__MODEL", "", "inference.model"),
    ],
)
async def test_a_wrong_setting_ends_the_process_with_2_and_one_line_naming_it(
    world: Any, variable: str, value: str, said: str
) -> None:
    async with service(world, "model", **{variable: value}) as running:
        assert await running.ended() == 2
        line = (await running.process.stderr.read()).decode()
    assert len(line.splitlines()) == 1
    assert said in line.lower()


async def test_a_frozen_worker_that_thaws_after_its_job_was_given_to_another_writes_nothing(
    world: Any, model_folders: Any
) -> None:
    model = model_folders["sd15"]
    async with (
        service(world, model, REVERIE_INFERENCE__NAME="frozen") as first,
        Reaper(world.bus, world.store, world.jobs, clock=SystemClock()).run(),
    ):
        await first.ready()
        job_id = await world.submit(num_inference_steps=SLOW_STEPS)
        await world.runs(job_id)
        first.process.send_signal(signal.SIGSTOP)
        await world.until(job_id, lambda job: job.state is JobState.QUEUED)
        async with service(world, model, REVERIE_INFERENCE__NAME="other"):
            await world.until(job_id, lambda job: job.attempt == 2)
            first.process.send_signal(signal.SIGCONT)
            job = await world.ended(job_id)
            another = await world.ended(await world.submit())
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)
    assert job.worker.startswith("other.")
    assert another.state is JobState.COMPLETED
    writers = [past.job.worker for past in await world.store.history(job_id) if past.job.state.terminal]
    assert writers == [job.worker]
