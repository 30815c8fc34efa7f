"""What happens to a job when the bridge, its ComfyUI, or what lies between them fails: it is done, once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from PIL import Image
from websockets.asyncio.client import connect

from reverie_jobs.reaper import Reaper
from reverie_jobs.transitions import Claim, requeue
from reverie_protocol.errors import ErrorCode
from reverie_protocol.instances import ComfyStatus
from reverie_protocol.jobs import JobState
from reverie_runtime.clock import SystemClock
from reverie_testing.fake_comfy import RECORDED, FakeComfy
from reverie_testing.product import free_port
from reverie_testing.service_process import ServiceProcess


@pytest.mark.parametrize("version", RECORDED)
async def test_a_server_that_is_killed_under_a_job_does_it_once_it_is_back(world: Any, version: str) -> None:
    async with FakeComfy(version) as comfy, world.bridge(comfy):
        job_id = await world.submit(world.loop(steps=20))
        await world.eventually(lambda: comfy.instance.queue.running, "the prompt to run")
        await comfy.restart(away_s=0.1)
        job = await world.ended(job_id)
        assert (job.state, job.error) == (JobState.COMPLETED, None)
        assert (job.attempt, job.losses, job.crashes) == (2, 1, 0)
        assert world.outcomes(comfy) == {"success": 1}
        record = await world.instance("a", lambda each: each.status is ComfyStatus.CONNECTED)
    assert sum(record.disconnects.values()) == 1


async def test_a_job_that_ends_its_server_each_time_fails_in_the_end(world: Any, comfy: FakeComfy) -> None:
    async with world.bridge(comfy):
        job_id = await world.submit(world.loop(steps=2000))
        for losses in range(3):
            await world.eventually(lambda: comfy.starts and comfy.instance.queue.running, "the prompt to run")
            await comfy.restart()
            await world.until(job_id, lambda job, n=losses: job.losses > n or job.state.terminal)
        job = await world.ended(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.WORKFLOW_FAILED)
    assert "lost this job 3 times" in job.error.message


async def test_an_instance_is_away_at_the_start_and_is_found_when_it_comes(world: Any) -> None:
    comfy = FakeComfy(port=free_port())
    async with world.bridge(comfy, wait=False):
        job_id = await world.submit(world.loop())
        record = await world.instance("a", lambda each: each.reason == "refused")
        assert record.status is ComfyStatus.DISCONNECTED
        async with comfy:
            assert (await world.ended(job_id)).state is JobState.COMPLETED


async def test_a_socket_that_goes_deaf_is_replaced_and_the_job_ends(world: Any, comfy: FakeComfy) -> None:
    async with world.bridge(comfy, status_s=0.5, look_s=0.2) as bridge:
        (worker,) = bridge.workers
        client = worker.instance.client_id
        async with connect(f"ws{comfy.url.removeprefix('http')}/ws?clientId={client}"):
            pass  # it takes the name, and its end leaves it to nobody
        job = await world.ended(await world.submit(world.loop(steps=100)))
        assert job.state is JobState.COMPLETED, job.error
        await world.instance("a", lambda each: each.disconnects.get("deaf_socket") == 1)
        assert worker.instance.client_id != client
    assert world.outcomes(comfy) == {"success": 1}


async def test_a_server_whose_worker_has_died_gets_no_more_work_until_it_is_restarted(
    world: Any, comfy: FakeComfy
) -> None:
    graph = world.loop()
    graph["3"] = {"class_type": "RecExit", "inputs": {"image": ["1", 0], "message": "gone"}}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}}
    async with world.bridge(comfy, silent_s=0.5, interrupt_s=0.5, look_s=0.2):
        await world.submit(graph)
        record = await world.instance("a", lambda each: each.status is ComfyStatus.UNHEALTHY)
        assert (record.reason, bool(record.detail)) == ("dead_worker", True)
        waiting = await world.submit(world.loop(seed=9), priority=0)
        await asyncio.sleep(0)
        assert (await world.until(waiting, lambda job: True)).state is JobState.QUEUED
        del comfy.classes["RecExit"]
        await comfy.restart()
        assert (await world.ended(waiting)).state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("fault", "posted"), [("refused_posts", 1), ("misreported_posts", 1), ("unanswered_posts", 1)]
)
@pytest.mark.parametrize("version", RECORDED)
async def test_a_post_without_a_clear_answer_is_looked_up_and_not_repeated_blindly(
    world: Any, version: str, fault: str, posted: int
) -> None:
    async with FakeComfy(version) as comfy, world.bridge(comfy):
        setattr(comfy.faults, fault, posted)
        job = await world.ended(await world.submit(world.loop()))
        assert job.state is JobState.COMPLETED, job.error
    assert world.outcomes(comfy) == {"success": 1}


async def test_a_job_whose_time_is_over_is_taken_out_of_comfyui(world: Any, comfy: FakeComfy) -> None:
    reaper = Reaper(world.bus, world.store, world.jobs, clock=SystemClock())
    async with world.bridge(comfy), reaper.run():
        job_id = await world.submit(world.loop(steps=2000))
        await world.eventually(lambda: comfy.instance.queue.running, "the prompt to run")
        await world.store.apply(job_id, lambda job: replace(job, finish_by=time.time()))
        job = await world.ended(job_id)
        assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.DEADLINE_EXCEEDED)
        await world.eventually(lambda: comfy.ended, "the prompt to be taken out")
    assert world.outcomes(comfy) == {"interrupted": 1}


async def test_a_job_that_was_given_back_under_a_running_prompt_goes_on_with_it(
    world: Any, comfy: FakeComfy
) -> None:
    async with FakeComfy() as other, world.bridge(other, comfy):
        job_id = await world.submit(world.loop(steps=60))
        running = await world.runs(job_id)
        await world.eventually(lambda: _busy(other, comfy), "the prompt to run")
        held = Claim(job_id, running.worker, running.attempt)
        await world.store.apply(job_id, partial(requeue, held=held, crashed=True, now=time.time()))
        job = await world.ended(job_id)
        assert (job.state, job.attempt) == (JobState.COMPLETED, 2)
    assert len(comfy.ended) + len(other.ended) == 1


async def test_a_result_that_came_too_late_is_left_to_whoever_has_the_job_now(
    world: Any, comfy: FakeComfy
) -> None:
    asked = []
    comfy.faults.stall(lambda request: request.path.endswith("/view") and not asked.append(request.path))
    async with world.bridge(comfy):
        job_id = await world.submit(world.loop())
        running = await world.runs(job_id)
        await world.eventually(lambda: asked, "its output to be fetched")
        held = Claim(job_id, running.worker, running.attempt)
        await world.store.apply(job_id, partial(requeue, held=held, crashed=True, now=time.time()))
        comfy.faults.release()
        job = await world.ended(job_id)
    assert (job.state, job.attempt) == (JobState.COMPLETED, 2)
    assert len(comfy.ended) == 1


@pytest.mark.parametrize("fault", ["unreadable_files", "refused_uploads"])
async def test_a_job_ends_although_its_server_answers_and_never_does_what_it_is_asked(
    world: Any, comfy: FakeComfy, fault: str
) -> None:
    setattr(comfy.faults, fault, True)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    key = await world.storage.put(picture.getvalue(), content_type="image/png")
    graph = world.loop()
    graph["3"] = {"class_type": "LoadImage", "inputs": {"image": "inputImage"}}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "copy"}}
    async with world.bridge(comfy, unreachable_s=0.5):
        job = await world.ended(await world.submit(graph, inputImage=key))
    assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.WORKFLOW_FAILED)
    assert "gives no usable answer" in job.error.message


def _busy(*comfies: FakeComfy) -> bool:
    return any(comfy.instance.queue.running for comfy in comfies)


@contextlib.asynccontextmanager
async def bridge_process(
    world: Any, folder: Path, *comfies: FakeComfy, **variables: str
) -> AsyncIterator[ServiceProcess]:
    port = free_port()
    environment = {
        **variables,
        "REVERIE_NATS__URL": world.server.url,
        "REVERIE_STORAGE__PATH": str(world.folder / "storage"),
        "REVERIE_COMFY__INSTANCES": ",".join(
            f"{name}={comfy.url}" for name, comfy in zip("ab", comfies, strict=False)
        ),
        "REVERIE_COMFY__ALLOWED_NODES": "*",
        "REVERIE_COMFY__NAME": "bridge",
        "REVERIE_COMFY__LOOK_S": "0.5",
        "REVERIE_DRAIN__DEADLINE_S": "2.1",
        "REVERIE_HEALTH__PORT": str(port),
    }
    process = ServiceProcess(
        "reverie_comfy_bridge", environment, url=f"http://127.0.0.1:{port}", log=folder / "bridge.log"
    )
    await asyncio.to_thread(process.start)
    try:
        await asyncio.to_thread(process.wait_ready)
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_bridge_that_ends_under_a_job_goes_on_with_its_prompt_when_it_is_back(
    world: Any, comfy: FakeComfy, tmp_path: Path, end: signal.Signals
) -> None:
    async with (
        FakeComfy() as other,
        Reaper(world.bus, world.store, world.jobs, clock=SystemClock()).run(),
        bridge_process(world, tmp_path, comfy, other) as process,
    ):
        job_id = await world.submit(world.loop(steps=20_000))
        for taken_over in range(1, 3 if end is signal.SIGKILL else 2):
            await world.eventually(lambda: _busy(comfy, other), "the prompt to run")
            process.send(end)
            await asyncio.to_thread(process.wait)
            await asyncio.to_thread(process.start)
            await world.eventually(
                lambda n=taken_over: process.logs().count("prompt taken over") == n, "the prompt to be found"
            )
        comfy.instance.pace = other.instance.pace = 0.0
        job = await world.ended(job_id)
        assert job.state is JobState.COMPLETED, (job.error, process.logs())
        assert job.losses == 0
        assert {outcome for _, outcome in [*comfy.ended, *other.ended]} == {"success"}, process.logs()
        assert len(comfy.ended) + len(other.ended) == 1, process.logs()
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{process.url}/metrics")).text
        assert 'reverie_comfy_connected{instance="a"} 1.0' in metrics


async def test_a_prompt_whose_job_is_over_is_taken_out_by_the_bridge_that_comes(
    world: Any, comfy: FakeComfy
) -> None:
    async with world.bridge(comfy, deadline_s=2.0):
        job_id = await world.submit(world.loop(steps=20_000))
        await world.eventually(lambda: comfy.instance.queue.running, "the prompt to run")
    assert comfy.instance.queue.running, "a bridge that ends leaves its prompt"
    assert (await world.until(job_id, lambda job: True)).state is JobState.QUEUED
    theirs = await world.foreign(comfy, world.loop(steps=3, seed=2))
    await world.cancel(job_id)
    async with world.bridge(comfy):
        await world.eventually(lambda: (theirs, "success") in comfy.ended, "the other prompt to run")
    assert world.outcomes(comfy) == {"interrupted": 1, "success": 1}


async def test_a_prompt_that_ended_while_no_bridge_was_there_is_not_run_again_on_another_instance(
    world: Any, comfy: FakeComfy
) -> None:
    async with FakeComfy() as other:
        async with world.bridge(comfy, other, deadline_s=0.1):
            job_id = await world.submit(world.loop(steps=20_000))
            await world.eventually(lambda: _busy(comfy, other), "the prompt to run")
        former = comfy if comfy.instance.queue.running else other
        former.instance.pace = 0.0
        await world.eventually(lambda: former.ended, "the prompt to end")
        former.instance.pace = 1.0
        await world.foreign(former, world.loop(steps=20_000, seed=2))  # the other one is less loaded now
        async with world.bridge(comfy, other):
            job = await world.ended(job_id)
    assert (job.state, job.attempt, job.losses) == (JobState.COMPLETED, 2, 0)
    assert len(comfy.ended) + len(other.ended) == 1


async def test_an_instance_that_drains_goes_on_with_what_a_former_bridge_left_in_it(
    world: Any, comfy: FakeComfy, set_instance: Any
) -> None:
    async with FakeComfy() as other:
        async with world.bridge(comfy, other, deadline_s=0.1):
            job_id = await world.submit(world.loop(steps=20_000))
            await world.eventually(lambda: _busy(comfy, other), "the prompt to run")
        former, name = (comfy, "a") if comfy.instance.queue.running else (other, "b")
        await set_instance(name, draining=True)
        async with world.bridge(comfy, other):
            await world.runs(job_id)
            former.instance.pace = 0.0
            job = await world.ended(job_id)
    assert (job.state, job.losses) == (JobState.COMPLETED, 0)
    assert [outcome for _, outcome in [*comfy.ended, *other.ended]] == ["success"]


async def test_a_server_that_was_entered_twice_does_all_its_jobs(world: Any, comfy: FakeComfy) -> None:
    async with world.bridge(comfy, comfy, look_s=0.1, deadline_s=0.1):
        jobs = [await world.submit(world.loop(steps=40, seed=seed)) for seed in range(4)]
        await world.eventually(lambda: comfy.instance.queue.pending, "both names to send")
    async with world.bridge(comfy, comfy, look_s=0.1):
        ends = [await world.ended(job_id) for job_id in jobs]
    assert [(job.state, job.losses) for job in ends] == [(JobState.COMPLETED, 0)] * 4
    assert world.outcomes(comfy) == {"success": 4}


async def test_a_second_bridge_stands_by_and_takes_over(world: Any, comfy: FakeComfy) -> None:
    async with contextlib.AsyncExitStack() as first:
        bridge = await first.enter_async_context(world.bridge(comfy, name="first"))
        async with world.bridge(name="second") as second:
            assert [worker.wish.name for worker in bridge.workers] == ["a"]
            record = await world.instance("a", lambda each: each.bridge.startswith("comfy-bridge-first."))
            assert not second.workers
            await first.aclose()
            record = await world.instance("a", lambda each: each.bridge.startswith("comfy-bridge-second."))
            assert record.origin == "settings"
            assert (await world.ended(await world.submit(world.loop()))).state is JobState.COMPLETED


async def test_a_bridge_that_ends_beside_any_of_its_steps_leaves_nothing_undone_and_nothing_twice(
    world: Any, comfy: FakeComfy, tmp_path: Path
) -> None:
    points = tmp_path / "points"
    points.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG")
    key = await world.storage.put(buffer.getvalue(), content_type="image/png")
    places = [f"{side}.comfy-{step}" for step in ("post", "end") for side in ("before", "after")]
    async with (
        Reaper(world.bus, world.store, world.jobs, clock=SystemClock()).run(),
        bridge_process(world, tmp_path, comfy, CRASH_POINTS=str(points)) as process,
    ):
        for number, place in enumerate([*places, "after.output", "after.comfy-forget"]):
            (points / place).write_text("KILL")
            ended = len(comfy.ended)
            model = "tiny_esrgan_x4_random.safetensors" if number % 2 else "tiny_esrgan_x2_random.safetensors"
            job_id = await world.submit(
                workflowId="upscale", params={"model": model}, inputImage=key, owner=f"owner-{number}"
            )
            await asyncio.to_thread(process.wait)
            await asyncio.to_thread(process.start)
            job = await world.ended(job_id)
            assert job.state is JobState.COMPLETED, (place, job.error, process.logs())
            assert [output.width for output in job.outputs] == [64 if number % 2 else 32]
            assert len(comfy.ended) == ended + 1, f"{place}: the prompt ran twice"
        await world.eventually(lambda: not comfy.instance.queue.history, "the history to be tidied")
