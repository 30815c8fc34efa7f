"""`/v1/comfy/*` against a worker and a bridge that do what the test says."""

from __future__ import annotations

import asyncio
import io
import json

import msgspec
import pytest
import pytest_asyncio
from PIL import Image

from reverie_jobs.transitions import cancel_finished, complete, fail
from reverie_protocol.comfy import ComfyVerdict, ComfyWorkflow, ComfyWorkflows
from reverie_protocol.errors import FieldError
from reverie_protocol.jobs import (
    ComfyNode,
    ComfyNodeError,
    ComfyNodeState,
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

NODES = (
    ComfyNode(id="1", title="Load", class_type="LoadImage", state=ComfyNodeState.FINISHED, progress=1.0),
    ComfyNode(id="3", title="Denoise", class_type="KSampler", progress=0.5),
)
RUN = ComfyRun(
    instance="gpu", prompt_id="p-1", client_id="c-1", nodes_total=5, nodes_seen=2, current=("3",), nodes=NODES
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bridge(stage):
    return await stage.bridge()


@pytest_asyncio.fixture(loop_scope="module")
async def asked(bridge):
    """The bridge, which has been asked nothing and finds all well."""
    bridge.verdict, bridge.checks = ComfyVerdict(), []
    return bridge


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def comfy(stage, gateway, bridge):
    """A worker that stands for an instance."""
    worker = await stage.worker(
        name="comfy-gpu",
        service="comfy-bridge",
        job_types=(JobType.COMFY,),
        workflows=("w",),
        modes={},
        mode=None,
    )
    async with gateway.socket() as client:
        while not (await client.until("system:status"))["workers"]:
            continue
    return worker


def picture():
    file = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(file, "PNG")
    return file.getvalue()


async def submitted(gateway, **body):
    answer = await gateway.http.post("/v1/comfy/jobs", json={"workflowId": "w", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["job_id"]


async def end(worker, held, change):
    await worker.store.apply(held.job_id, change)


async def cancelled(gateway, *job_ids):
    for job_id in job_ids:
        await gateway.http.delete(f"/v1/comfy/jobs/{job_id}")


async def polled(gateway, job_id, condition):
    async with asyncio.timeout(20):
        while not condition(body := (await gateway.http.get(f"/v1/comfy/jobs/{job_id}")).json()):
            await asyncio.sleep(0.02)
    return body


async def test_a_form_with_an_image_makes_a_job_and_says_its_id_in_three_spellings(gateway, comfy, asked):
    form = {
        "workflowId": "w",
        "params": json.dumps({"prompt": "x", "n": 1}),
        "unknown": "1",
        "priority": "batch",
    }
    answer = await gateway.http.post(
        "/v1/comfy/jobs", data=form, files={"image": ("a.png", picture(), "image/png")}
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"job_id", "jobId", "id"}
    assert len(set(body.values())) == 1
    job = await comfy.sees(body["id"])
    assert (job.params.workflowId, job.params.params, job.priority) == ("w", {"prompt": "x", "n": 1}, 2)
    assert await comfy.storage.stat(job.params.inputImage)
    [check] = asked.checks
    assert check.params.workflowId == "w"
    assert check.may_send_graphs  # everybody is an administrator where nobody is asked who he is
    await cancelled(gateway, job.id)


async def test_json_takes_a_reference_a_graph_and_further_references_among_the_parameters(
    gateway, comfy, asked
):
    uploads = [
        (await gateway.http.post("/v1/upload", files={"file": ("a.png", picture(), "image/png")})).json()[
            "fileRef"
        ]
        for _ in range(2)
    ]
    first = await submitted(
        gateway, inputImage=f"fileRef:{uploads[0]}", params={"mask": f"fileRef:{uploads[1]}", "text": "a"}
    )
    job = await comfy.sees(first)
    assert job.params.params == {"mask": f"fileRef:{job.params.inputImage}", "text": "a"}
    answer = await gateway.http.post(
        "/v1/comfy/jobs", json={"workflow": {"1": {"class_type": "A", "inputs": {}}}}
    )
    assert answer.status_code == 200, answer.text
    lost = await gateway.http.post(
        "/v1/comfy/jobs", json={"workflowId": "w", "params": {"mask": "fileRef:" + "0" * 32}}
    )
    assert (lost.status_code, lost.json()["code"]) == (404, "file_not_found")
    await cancelled(gateway, first, answer.json()["id"])


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"workflowId": "w", "params": "{"}, 400, "invalid_json"),
        ({"workflowId": "w", "params": "[1]"}, 400, "invalid_json"),
        ({"params": "{}"}, 422, "invalid_field"),
        ({"workflowId": "w", "preview": "best"}, 422, "invalid_field"),
    ],
)
async def test_a_form_that_is_wrong_says_why(gateway, comfy, asked, form, status, code):
    files = {"nothing": ("x", b"x")}  # what nobody asked for is skipped
    answer = await gateway.http.post("/v1/comfy/jobs", data=form, files=files)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not asked.checks


@pytest.mark.parametrize(
    "body", [{}, {"workflowId": "w", "workflow": {}}, {"workflowId": 3}, {"workflowId": "w", "params": []}]
)
async def test_json_that_is_wrong_is_a_422_by_field(gateway, comfy, body):
    answer = await gateway.http.post("/v1/comfy/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert answer.json()["detail"][0]["loc"][0] == "body"


async def test_other_bodies_and_pictures_that_are_none_are_refused(gateway, comfy):
    plain = await gateway.http.post("/v1/comfy/jobs", content=b"x", headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415
    large = await gateway.http.post(
        "/v1/comfy/jobs", json={"workflowId": "w", "params": {"a": "x" * (1 << 20)}}
    )
    assert large.status_code == 413
    for content, status in ((b"", 400), (b"no picture", 415)):
        files = {"image": ("a.png", content, "image/png")}
        answer = await gateway.http.post("/v1/comfy/jobs", data={"workflowId": "w"}, files=files)
        assert answer.status_code == status


async def test_what_the_bridge_refuses_is_answered_with_its_words_and_makes_no_job(gateway, comfy, asked):
    error = ComfyNodeError("3", "value_bigger_than_max", "too big", "KSampler", "Denoise", "steps")
    asked.verdict = ComfyVerdict(
        code="workflow_invalid",
        message="node 3.steps: too big",
        fields=(FieldError(("workflow", "3", "steps"), "too big", "value_bigger_than_max"),),
        node_errors=(error,),
    )
    answer = await gateway.http.post("/v1/comfy/jobs", json={"workflowId": "w"})
    assert (answer.status_code, answer.json()["code"]) == (422, "workflow_invalid")
    assert answer.json()["nodeErrors"] == [msgspec.to_builtins(error)]
    assert answer.json()["detail"][0]["loc"] == ["body", "workflow", "3", "steps"]
    asked.verdict = ComfyVerdict(code="workflow_not_found", message="there is no workflow 'w'")
    answer = await gateway.http.post("/v1/comfy/jobs", json={"workflowId": "w"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "there is no workflow 'w'")
    strict = await gateway.http.post("/v1/jobs", json={"jobType": "comfy", "workflowId": "w"})
    assert (strict.status_code, strict.json()["code"]) == (400, "workflow_not_found")
    assert not comfy.mirror.queued


async def test_a_repetition_is_answered_from_the_record_without_asking(gateway, comfy, asked):
    headers = {"Idempotency-Key": "mine"}
    first = await gateway.http.post("/v1/comfy/jobs", json={"workflowId": "w"}, headers=headers)
    asked.verdict = ComfyVerdict(code="workflow_not_found", message="gone")
    again = await gateway.http.post("/v1/comfy/jobs", json={"workflowId": "w"}, headers=headers)
    assert first.json() == again.json()
    assert len(asked.checks) == 1
    await cancelled(gateway, first.json()["id"])


async def test_polling_shows_nodes_outputs_and_where_the_job_is(gateway, comfy, asked):
    job_id = await submitted(gateway)
    body = await polled(gateway, job_id, lambda body: body.get("status") == "queued")
    assert (body["workflowId"], body["outputs"], body["error"], body["heartbeat_at"]) == ("w", [], None, None)
    assert body["comfy"] == {"client_id": None, "prompt_id": None, "instance": None}
    held = await comfy.claim(job_id)
    progress = Progress(
        job_id=job_id,
        attempt=1,
        phase=Phase.EXECUTING,
        step=2,
        steps=4,
        progress=0.5,
        node="Denoise",
        comfy=RUN,
    )
    await comfy.bus.publish(job_progress(job_id), msgspec.json.encode(progress))
    body = await polled(gateway, job_id, lambda body: body["progress"]["nodes_seen"])
    assert (body["status"], body["started_at"] <= body["heartbeat_at"]) == ("running", True)
    assert body["comfy"] == {"client_id": "c-1", "prompt_id": "p-1", "instance": "gpu"}
    shown = body["progress"]
    assert [node["node"] for node in shown.pop("node_progression")] == ["1", "3"]
    assert shown == {"nodes_total": 5, "nodes_seen": 2, "current_node": "3", "fraction": 0.5}
    ours = (await gateway.http.get(f"/v1/jobs/{job_id}")).json()
    assert (ours["node"], ours["comfy"]["promptId"]) == ("Denoise", "p-1")
    key = await comfy.storage.put(picture(), content_type="image/png")
    output = Output(
        url=f"/storage/{key}",
        key=key,
        node="9",
        kind="images",
        filename="a_1.png",
        subfolder="reverie",
        folder_type="output",
    )
    meta = JobMeta(seed=1, backend="comfyui", workflow="w", comfy=RUN)
    await end(
        comfy, held, lambda job: complete(job, held, outputs=(output,), meta=meta, now=job.updated_at + 1)
    )
    body = await polled(gateway, job_id, lambda body: body["status"] == "done")
    assert body["progress"]["fraction"] == 1.0
    [shown] = body["outputs"]
    assert {name: shown[name] for name in ("id", "url", "filename", "type", "subfolder")} == {
        "id": key,
        "url": f"/storage/{key}",
        "filename": "a_1.png",
        "type": "output",
        "subfolder": "reverie",
    }
    assert (await gateway.http.get(shown["url"])).content == picture()


async def test_a_failed_job_says_which_node_and_why(gateway, comfy, asked):
    held = await comfy.claim(await submitted(gateway))
    error = JobError(
        "workflow_failed",
        "Denoise (KSampler): out of bananas",
        node_errors=(ComfyNodeError("3", "ValueError", "out of bananas", "KSampler", "Denoise"),),
    )
    await end(comfy, held, lambda job: fail(job, held, error=error, now=job.updated_at + 1))
    body = await polled(gateway, held.job_id, lambda body: body["status"] == "error")
    assert body["error"] == "Denoise (KSampler): out of bananas"
    assert (body["code"], body["node_errors"][0]["node"]) == ("workflow_failed", "3")


async def test_a_cancel_waits_until_the_job_has_stopped_and_may_be_repeated(gateway, comfy, asked):
    waiting = await submitted(gateway)
    for _ in range(2):
        answer = await gateway.http.delete(f"/v1/comfy/jobs/{waiting}")
        assert (answer.status_code, answer.json()) == (200, {"job_id": waiting, "status": "canceled"})
    held = await comfy.claim(await submitted(gateway))
    asking = asyncio.create_task(gateway.http.delete(f"/v1/comfy/jobs/{held.job_id}"))
    await comfy.sees(held.job_id, lambda job: job.cancel)
    assert not asking.done()
    await end(
        comfy, held, lambda job: cancel_finished(job, held, outputs=(), meta=None, now=job.updated_at + 1)
    )
    assert (await asking).json() == {"job_id": held.job_id, "status": "canceled"}


async def test_a_job_of_another_kind_or_none_is_not_found(gateway, comfy, asked):
    other = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": "x"})
    for job_id in (other.json()["jobId"], "0" * 32, "not an id"):
        for method in ("GET", "DELETE"):
            answer = await gateway.http.request(method, f"/v1/comfy/jobs/{job_id}")
            assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    await gateway.http.delete(f"/v1/jobs/{other.json()['jobId']}")


async def test_a_workflow_that_no_instance_runs_now_waits_and_says_why(gateway, comfy, asked):
    await comfy.beat(unavailable={"big": "it has no node class Huge"})
    job_id = await submitted(gateway, workflowId="big")
    async with asyncio.timeout(20):
        while "Huge" not in ((await gateway.http.get(f"/v1/jobs/{job_id}")).json()["waitingFor"] or ""):
            await asyncio.sleep(0.05)
    await comfy.beat(workflows=("w", "big"), unavailable={})
    held = await comfy.claim(job_id)
    await end(comfy, held, lambda job: complete(job, held, outputs=(), meta=None, now=job.updated_at + 1))


async def test_the_workflows_are_listed_with_a_schema_each(gateway, comfy, asked):
    workflow = ComfyWorkflow(
        id="w", title="W", params={"type": "object"}, input_image="optional", available=("gpu",)
    )
    asked.workflows = ComfyWorkflows(workflows=(workflow,))
    listed = (await gateway.http.get("/v1/comfy/workflows")).json()
    assert listed["workflows"] == [json.loads(msgspec.json.encode(workflow))]
    assert (await gateway.http.get("/v1/comfy/workflows/w")).json() == listed["workflows"][0]
    absent = await gateway.http.get("/v1/comfy/workflows/x")
    assert (absent.status_code, absent.json()["code"]) == (404, "not_found")


async def test_without_a_bridge_there_is_a_502_that_may_be_tried_again(own_stage):
    gateway = await own_stage.gateway()
    answer = await gateway.http.post("/v1/comfy/jobs", json={"workflowId": "w"})
    assert (answer.status_code, answer.json()["code"]) == (502, "comfy_unreachable")
    assert answer.headers["Retry-After"]
    assert (await gateway.http.get("/v1/comfy/workflows")).status_code == 502
    # One that has done such jobs may be back soon.
    await own_stage.worker(job_types=(JobType.COMFY,), workflows=("w",))
    async with gateway.socket() as client:
        while not (await client.until("system:status"))["workers"]:
            continue
    asking = asyncio.create_task(gateway.http.post("/v1/comfy/jobs", json={"workflowId": "w"}))
    await own_stage.bridge()
    assert (await asking).status_code == 200
