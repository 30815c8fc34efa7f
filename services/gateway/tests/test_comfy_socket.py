"""ComfyUI jobs on the WebSocket."""

from __future__ import annotations

import io

import msgspec
import pytest
import pytest_asyncio
from PIL import Image

from reverie_jobs.transitions import cancel_finished, complete, fail
from reverie_protocol.comfy import ComfyVerdict
from reverie_protocol.jobs import (
    ComfyNode,
    ComfyNodeError,
    ComfyRun,
    JobError,
    JobMeta,
    JobType,
    Output,
    Phase,
    Progress,
)
from reverie_protocol.subjects import job_progress

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUN = ComfyRun(
    instance="gpu",
    nodes_total=3,
    nodes_seen=1,
    current=("3",),
    nodes=(ComfyNode(id="3", class_type="KSampler"),),
)
ERROR = ComfyNodeError("3", "value_not_in_list", "no such sampler", field="sampler_name")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bridge(stage):
    return await stage.bridge()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def comfy(stage, gateway, bridge):
    """A worker that stands for an instance."""
    worker = await stage.worker(job_types=(JobType.COMFY,), workflows=("w",), modes={}, mode=None)
    async with gateway.socket() as client:
        while not (await client.until("system:status"))["workers"]:
            continue
    return worker


async def submitted(client, **fields):
    await client.send({"type": "job:submit", "id": 1, "jobType": "comfy", "workflowId": "w", **fields})
    return (await client.until("job:ack"))["jobId"]


async def test_a_job_on_the_socket_names_its_image_by_reference(gateway, comfy):
    file = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(file, "PNG")
    upload = await gateway.http.post("/v1/upload", files={"file": ("a.png", file.getvalue(), "image/png")})
    async with gateway.socket() as client:
        job_id = await submitted(
            client, params={"a": 1}, inputImage=f"fileRef:{upload.json()['fileRef']}", preview="taesd"
        )
        job = await comfy.sees(job_id)
        assert (job.params.params, job.params.preview) == ({"a": 1}, "taesd")
        assert await comfy.storage.stat(job.params.inputImage)
        await client.send({"type": "job:cancel", "jobId": job_id})
        await client.until("job:error")


async def test_progress_names_the_nodes_and_the_end_has_the_outputs(gateway, comfy):
    async with gateway.socket() as client:
        job_id = await submitted(client)
        held = await comfy.claim(job_id)
        progress = Progress(
            job_id=job_id, attempt=1, phase=Phase.EXECUTING, progress=0.25, node="KSampler", comfy=RUN
        )
        await client.until("job:state", state="running")
        await comfy.bus.publish(job_progress(job_id), msgspec.json.encode(progress))
        told = await client.until("job:progress")
        assert (told["node"], told["progress"], told["comfy"]["nodesTotal"]) == ("KSampler", 0.25, 3)
        assert told["comfy"]["nodes"][0]["classType"] == "KSampler"
        output = Output(url="/storage/k.png", key="k.png", node="9", kind="images", filename="a.png")
        meta = JobMeta(seed=1, backend="comfyui", workflow="w", comfy=RUN)
        await comfy.store.apply(
            job_id, lambda job: complete(job, held, outputs=(output,), meta=meta, now=job.updated_at + 1)
        )
        ended = await client.until("job:complete")
        assert ended["outputs"][0]["filename"] == "a.png"
        assert (ended["meta"]["workflow"], ended["meta"]["comfy"]["instance"]) == ("w", "gpu")


async def test_a_running_job_is_cancelled_on_the_socket(gateway, comfy):
    async with gateway.socket() as client:
        job_id = await submitted(client)
        held = await comfy.claim(job_id)
        await client.send({"type": "job:cancel", "id": 2, "jobId": job_id})
        await client.until("job:cancel:ok", id=2, state="running")
        await comfy.sees(job_id, lambda job: job.cancel)
        await comfy.store.apply(
            job_id, lambda job: cancel_finished(job, held, outputs=(), meta=None, now=job.updated_at + 1)
        )
        assert (await client.until("job:error"))["code"] == "cancelled"


async def test_a_refusal_and_a_failure_name_the_nodes(gateway, comfy, bridge):
    async with gateway.socket() as client:
        bridge.verdict = ComfyVerdict(code="workflow_invalid", message="node 3: no", node_errors=(ERROR,))
        await client.send({"type": "job:submit", "id": 7, "jobType": "comfy", "workflowId": "w"})
        refused = await client.until("error", id=7)
        assert (refused["code"], refused["nodeErrors"][0]["field"]) == ("workflow_invalid", "sampler_name")
        bridge.verdict = ComfyVerdict()
        held = await comfy.claim(await submitted(client))
        error = JobError("workflow_invalid", "node 3: no", node_errors=(ERROR,))
        await comfy.store.apply(held.job_id, lambda job: fail(job, held, error=error, now=job.updated_at + 1))
        failed = await client.until("job:error")
        assert failed["error"]["nodeErrors"][0]["type"] == "value_not_in_list"
