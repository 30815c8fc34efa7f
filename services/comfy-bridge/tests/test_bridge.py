"""The bridge from a job's record to its outputs, with fake ComfyUI servers behind it."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from PIL import Image

from reverie_protocol.errors import ErrorCode
from reverie_protocol.instances import ComfyStatus
from reverie_protocol.jobs import JobState
from reverie_protocol.preview import decode_preview
from reverie_protocol.subjects import job_preview, job_watch
from reverie_testing.fake_comfy import RECORDED, FakeComfy


@pytest.mark.parametrize("version", RECORDED)
async def test_a_job_becomes_stored_outputs_with_progress_per_node_in_every_version(
    world: Any, version: str
) -> None:
    progress = await world.listen("job.progress.*")
    async with FakeComfy(version) as comfy, world.bridge(comfy):
        job = await world.ended(await world.submit(world.loop()))
        assert (job.state, job.error, job.attempt) == (JobState.COMPLETED, None, 1)
        await world.eventually(lambda: not comfy.instance.queue.history, "the history entry to be deleted")
    (output,) = job.outputs
    assert (output.node, output.kind, output.filename) == ("2", "images", "made_00001_.png")
    picture = Image.open(io.BytesIO(await world.stored(output.key)))
    assert picture.size == (output.width, output.height) == (32, 32)
    assert [(node.title or node.class_type, node.progress) for node in job.meta.comfy.nodes] == [
        ("Loop", 1.0),
        ("SaveImage", 1.0),
    ]
    told = world.told(progress)
    fractions = [each.progress for each in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert "Loop" in {node.title for each in told if each.comfy for node in each.comfy.nodes}


@pytest.mark.parametrize("version", RECORDED)
async def test_a_running_job_is_cancelled_and_others_prompts_are_not(world: Any, version: str) -> None:
    async with FakeComfy(version) as comfy, world.bridge(comfy):
        job_id = await world.submit(world.loop(steps=2000))
        await world.eventually(lambda: comfy.instance.queue.running, "the prompt to run")
        theirs = await world.foreign(comfy, world.loop(steps=3, seed=2))
        await world.cancel(job_id)
        job = await world.ended(job_id)
        assert (job.state, job.error.code) == (JobState.CANCELLED, ErrorCode.CANCELLED)
        await world.eventually(lambda: (theirs, "success") in comfy.ended, "the other prompt to end")
    assert world.outcomes(comfy) == {"interrupted": 1, "success": 1}


@pytest.mark.parametrize("version", RECORDED)
async def test_a_job_that_waits_inside_comfyui_is_cancelled_without_running(world: Any, version: str) -> None:
    async with FakeComfy(version) as comfy, world.bridge(comfy):
        theirs = await world.foreign(comfy, world.loop(steps=2000))
        await world.eventually(lambda: comfy.instance.queue.running, "their prompt to run")
        job_id = await world.submit(world.loop())
        await world.eventually(lambda: comfy.instance.queue.pending, "our prompt to wait")
        await world.cancel(job_id)
        assert (await world.ended(job_id)).state is JobState.CANCELLED
        assert comfy.instance.queue.running[1] == theirs
        assert comfy.ended == []


async def test_a_failing_node_is_named_and_what_was_made_before_is_kept(world: Any, comfy: FakeComfy) -> None:
    graph = world.loop()
    graph["3"] = {"class_type": "RecFail", "inputs": {"image": ["1", 0], "message": "no such luck"}}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}}
    async with world.bridge(comfy):
        job = await world.ended(await world.submit(graph))
    assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.WORKFLOW_FAILED)
    (error,) = job.error.node_errors
    assert (error.node, error.class_type) == ("3", "RecFail")
    assert "no such luck" in job.error.message
    assert job.partial
    assert [(output.node, output.partial) for output in job.outputs] == [("2", True)]


async def test_what_no_instance_can_run_fails_by_node_and_field(world: Any, comfy: FakeComfy) -> None:
    graph = world.loop()
    graph["1"]["inputs"]["steps"] = -3
    async with world.bridge(comfy):
        job = await world.ended(await world.submit(graph))
    assert (job.state, job.error.code) == (JobState.FAILED, ErrorCode.WORKFLOW_INVALID)
    assert [(error.node, error.field, error.type) for error in job.error.node_errors] == [
        ("1", "steps", "value_smaller_than_min")
    ]
    assert comfy.ended == []


async def test_a_cached_run_whose_file_is_gone_is_made_to_work_again(world: Any, comfy: FakeComfy) -> None:
    async with world.bridge(comfy):
        first = await world.ended(await world.submit(world.loop()))
        cached = await world.ended(await world.submit(world.loop()))
        assert [output.key for output in cached.outputs] == [output.key for output in first.outputs]
        assert comfy.files.delete("output") == 1
        again = await world.ended(await world.submit(world.loop()))
    assert again.state is JobState.COMPLETED, again.error
    assert [output.filename for output in again.outputs] == ["made_00002_.png"]
    assert world.outcomes(comfy) == {"success": 4}


async def test_pictures_that_go_over_the_socket_alone_are_caught(world: Any, comfy: FakeComfy) -> None:
    graph = world.loop()
    graph["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    async with world.bridge(comfy):
        job = await world.ended(await world.submit(graph))
    assert job.state is JobState.COMPLETED, job.error
    (output,) = job.outputs
    assert (output.node, output.content_type, output.width) == ("2", "image/png", 32)


async def test_previews_flow_while_somebody_watches_and_only_then(world: Any, comfy: FakeComfy) -> None:
    async with world.bridge(comfy, preview_hz=30.0):
        frames = await world.listen("job.preview.*")
        unwatched = await world.submit(world.loop(preview="JPEG"))
        assert (await world.ended(unwatched)).state is JobState.COMPLETED
        job_id = await world.submit(world.loop(steps=2000, preview="PNG", seed=2))
        async with asyncio.timeout(60):
            await world.runs(job_id)
            await world.bus.publish(job_watch(job_id), b"")
            message = await frames.get()
        await world.cancel(job_id)
        await world.ended(job_id)
    assert message.subject == job_preview(job_id)
    header, picture = decode_preview(message.data)
    assert (header.job_id, header.content_type) == (job_id, "image/png")
    assert Image.open(io.BytesIO(picture)).size == (header.width, header.height)


async def test_an_input_picture_goes_along_under_a_name_of_its_content(world: Any, comfy: FakeComfy) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG")
    key = await world.storage.put(buffer.getvalue(), content_type="image/png")
    async with world.bridge(comfy):
        job = await world.ended(await world.submit(workflowId="upscale", inputImage=key))
    assert job.state is JobState.COMPLETED, job.error
    assert [(output.width, output.height) for output in job.outputs] == [(32, 32)]
    assert [name for kind, _, name in comfy.files.kept if kind == "input"] == [key]
    assert job.meta.workflow == "upscale"


async def test_a_job_goes_to_the_instance_that_has_the_nodes(world: Any, comfy: FakeComfy) -> None:
    async with FakeComfy() as without:
        del without.classes["RecLoop"]
        async with world.bridge(without, comfy):
            jobs = [await world.submit(world.loop(seed=number)) for number in range(3)]
            for job_id in jobs:
                job = await world.ended(job_id)
                assert job.state is JobState.COMPLETED, job.error
                assert job.meta.comfy.instance == "b"


async def test_work_is_shared_by_load_and_a_draining_instance_takes_none(
    world: Any, comfy: FakeComfy, set_instance: Any
) -> None:
    async with FakeComfy() as other, world.bridge(comfy, other):
        busy = [await world.submit(world.loop(steps=30, seed=number)) for number in range(2)]
        where = {(await world.runs(job_id)).worker.partition(".")[0] for job_id in busy}
        assert where == {"comfy-a", "comfy-b"}
        for job_id in busy:
            await world.ended(job_id)
        await set_instance("a", draining=True)
        await world.eventually(
            lambda: any(worker.wish.draining for worker in world.latest_bridge.workers), "a to drain"
        )
        for number in range(3):
            job = await world.ended(await world.submit(world.loop(seed=10 + number)))
            assert job.meta.comfy.instance == "b"


async def test_an_instance_is_added_disabled_and_removed_at_run_time(
    world: Any, comfy: FakeComfy, set_instance: Any
) -> None:
    async with world.bridge():
        waiting = await world.submit(world.loop())
        await set_instance("late", url=comfy.url)
        await world.instance("late", lambda each: each.status is ComfyStatus.CONNECTED)
        assert (await world.ended(waiting)).state is JobState.COMPLETED
        running = await world.submit(world.loop(steps=2000, seed=2))
        await world.eventually(lambda: comfy.instance.queue.running, "the prompt to run")
        await set_instance("late", enabled=False)
        await world.until(running, lambda job: job.state is JobState.QUEUED)
        await world.instance("late", lambda each: each.status is ComfyStatus.DISABLED)
        assert world.outcomes(comfy) == {"success": 1, "interrupted": 1}
        await world.cancel(running)
        await world.table.delete("late")
        await world.eventually(lambda: not world.latest_bridge.workers, "the instance to be left")
