"""`POST /generate`: one picture in the answer, and every way in which there is none."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from reverie_jobs.transitions import complete
from reverie_protocol.jobs import JobMeta, Output

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIVE = ("queued", "running")


async def ask(gateway, worker, body, **options):
    """The answer to a request that the worker carries out."""
    asked = asyncio.create_task(gateway.http.post("/generate", json=body, **options))
    await worker.do_next()
    return await asked


def wrong_fields(answer):
    return {tuple(entry["loc"]): entry["type"] for entry in answer.json()["detail"]}


async def test_the_answer_is_the_picture_and_its_headers_say_how_it_was_made(gateway, worker, prompt):
    answer = await ask(gateway, worker, {"prompt": prompt, "seed": 7, "mode": "tiny"})
    assert answer.status_code == 200
    headers = answer.headers
    job_id = headers["x-job-id"]
    assert answer.content == f"picture {job_id}".encode()
    assert headers.get_list("content-type") == ["image/png"]
    assert headers.get_list("content-length") == [str(len(answer.content))]
    assert headers["cache-control"] == "no-store"
    assert (headers["x-seed"], headers["x-mode"], headers["x-superres"]) == ("7", "tiny", "0")
    assert headers["x-backend"] == "bench"
    assert not [name for name in headers if name.startswith("x-sr-")]
    stored = await gateway.http.get(f"/storage/{headers['x-lcm-image-key']}")
    assert stored.content == answer.content
    assert (await gateway.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "completed"


async def test_super_resolution_is_described_in_headers_of_its_own(gateway, worker, prompt):
    body = {"prompt": prompt, "superres": True, "superres_format": "jpeg", "superres_magnitude": 1}
    answer = await ask(gateway, worker, body)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-superres"] == "1"
    assert answer.headers["x-sr-model"] == "bench-sr"
    assert answer.headers["x-sr-passes"] == "1"
    assert answer.headers["x-sr-scale-per-pass"] == "2"
    assert answer.headers["x-sr-format"] == "jpeg"


async def test_a_missing_seed_is_drawn_and_returned_and_unknown_fields_are_ignored(gateway, worker, prompt):
    body = {"prompt": prompt, "seed": None, "size": None, "style_lora": {}, "client_thing": [1, 2]}
    first = await ask(gateway, worker, body)
    second = await ask(gateway, worker, body)
    assert first.status_code == second.status_code == 200
    assert 0 <= int(first.headers["x-seed"]) < 2**32
    assert first.headers["x-seed"] != second.headers["x-seed"]


async def test_values_of_the_request_reach_the_worker_unchanged(gateway, worker, prompt):
    body = {
        "prompt": prompt,
        "negative_prompt": "dark",
        "size": "128x64",
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "style_lora": {"style": "ink", "level": 3},
        "scheduler": "DDIM",
    }
    answer = await ask(gateway, worker, body)
    params = worker.mirror.get(answer.headers["x-job-id"]).params
    assert (params.size, params.num_inference_steps, params.guidance_scale) == ("128x64", 4, 1.0)
    assert (params.negative_prompt, params.style_lora.level, params.scheduler) == ("dark", 3, "DDIM")


async def test_every_wrong_field_has_an_entry_of_its_own(gateway, worker):
    body = {"size": "65x65", "num_inference_steps": 151, "guidance_scale": "high", "seed": -1}
    body |= {"superres": 1, "superres_format": "gif", "style_lora": {"level": 9}}
    answer = await gateway.http.post("/generate", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_field"
    assert set(wrong_fields(answer)) == {
        ("body", "prompt"),
        ("body", "size"),
        ("body", "num_inference_steps"),
        ("body", "guidance_scale"),
        ("body", "seed"),
        ("body", "superres"),
        ("body", "superres_format"),
        ("body", "style_lora", "level"),
    }
    assert all(set(entry) == {"loc", "msg", "type"} for entry in answer.json()["detail"])


async def test_an_unknown_scheduler_is_a_422_that_names_those_there_are(gateway, worker, prompt):
    answer = await gateway.http.post("/generate", json={"prompt": prompt, "scheduler": "magic"})
    assert answer.status_code == 422
    [entry] = answer.json()["detail"]
    assert entry["loc"] == ["body", "scheduler"]
    assert "DDIM" in entry["msg"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"mode": "grand"}, "mode_not_found"),
        ({"style_lora": {"style": "oil", "level": 1}}, "style_not_found"),
        ({"style_lora": {"style": "oil", "level": 0}}, "style_not_found"),
    ],
)
async def test_an_unknown_mode_or_style_is_a_404_that_names_those_there_are(
    gateway, worker, prompt, fields, code
):
    answer = await gateway.http.post("/generate", json={"prompt": prompt} | fields)
    assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert {"mode_not_found": "tiny", "style_not_found": "ink"}[code] in answer.json()["detail"]


async def test_a_style_at_level_0_is_off(gateway, worker, prompt):
    for style in ("ink", "", None):
        body = {"prompt": prompt, "style_lora": {"style": style, "level": 0}}
        assert (await ask(gateway, worker, body)).status_code == 200


@pytest.mark.parametrize("path", ["/generate", "/v1/jobs"])
async def test_super_resolution_beyond_what_is_made_is_refused_before_there_is_a_job(
    gateway, worker, prompt, path
):
    body = {"prompt": prompt, "size": "4096x64", "superres": True, "superres_magnitude": 2}
    body |= {"jobType": "generate"} if path == "/v1/jobs" else {}
    answer = await gateway.http.post(path, json=body)
    [field] = answer.json()["detail"]
    assert (answer.status_code, field["loc"]) == (422, ["body", "superres_magnitude"])
    assert "8192" in field["msg"]
    async with gateway.socket() as client:
        await client.send({"type": "job:submit", "id": 1, **body, "jobType": "generate"})
        [field] = (await client.until("error", id=1))["fields"]
        assert field["loc"] == ["superres_magnitude"]
    assert not worker.mirror.queued


async def test_a_failed_job_is_a_500_with_the_jobs_own_code(gateway, worker, prompt):
    asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
    held = await worker.claim((await worker.next_job()).id)
    await worker.fail(held, "out_of_memory", "the picture is too large for the memory")
    answer = await asked
    body = answer.json()
    assert (answer.status_code, body["code"], body["jobId"]) == (500, "out_of_memory", held.job_id)
    assert body["detail"] == "the picture is too large for the memory"
    assert answer.headers["x-job-id"] == held.job_id


async def test_what_only_the_worker_can_find_wrong_with_a_request_is_a_4xx(gateway, worker, prompt):
    asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
    held = await worker.claim((await worker.next_job()).id)
    await worker.fail(held, "invalid_field", "the picture would be 16384 pixels wide; at most 8192 are made")
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert "8192" in answer.json()["detail"][0]["msg"]


async def test_a_failure_code_this_gateway_does_not_know_is_still_a_500(gateway, worker, prompt):
    asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
    await worker.fail(await worker.claim((await worker.next_job()).id), "from_the_future")
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")


async def test_a_job_that_somebody_cancels_ends_the_wait_with_a_409(gateway, worker, prompt):
    asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
    job = await worker.next_job()
    await gateway.http.delete(f"/v1/jobs/{job.id}")
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (409, "cancelled")


async def test_a_wait_that_runs_out_is_a_504_with_the_address_of_the_job_which_goes_on(stage, worker, prompt):
    hasty = await stage.gateway(generate_wait_s=0.2)
    answer = await hasty.http.post("/generate", json={"prompt": prompt})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (504, "wait_timeout")
    assert body["url"] == f"/v1/jobs/{body['jobId']}"
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "generate-client"]
    assert (await hasty.http.get(body["url"])).json()["state"] == "queued"
    job = await worker.do_next()
    assert job.id == body["jobId"]
    view = (await hasty.http.get(body["url"])).json()
    assert view["state"] == "completed"
    picture = await hasty.http.get(view["outputs"][0]["url"])
    assert picture.content == f"picture {job.id}".encode()


async def test_a_client_that_leaves_does_not_take_its_job_along(gateway, worker, prompt):
    body = b'{"prompt": "left alone"}'
    head = f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as leaving:
        leaving.sendall(head.encode() + body)
        job = await worker.next_job()
    held = await worker.claim(job.id)
    assert (await worker.complete(held)).state == "completed"
    assert (await gateway.http.get(f"/v1/jobs/{job.id}")).json()["outputs"]


async def test_a_repetition_under_the_same_key_gets_the_same_picture_and_other_work_a_409(
    gateway, worker, prompt
):
    body, key = {"prompt": prompt}, {"Idempotency-Key": "once"}
    first = await ask(gateway, worker, body, headers=key)
    again = await gateway.http.post("/generate", json=body, headers=key)
    assert again.content == first.content
    assert again.headers["x-job-id"] == first.headers["x-job-id"]
    other = await gateway.http.post("/generate", json={"prompt": "another"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_an_output_that_is_gone_is_an_error_and_not_an_empty_picture(gateway, worker, prompt):
    asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
    job = await worker.next_job()
    held = await worker.claim(job.id)
    key = await worker.storage.put(b"soon gone", content_type="image/png")
    await worker.storage.delete(key)
    content = worker.storage.put

    async def lost(*_args, **_options):
        return key

    worker.storage.put = lost
    try:
        await worker.complete(held)
    finally:
        worker.storage.put = content
    answer = await asked
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"


async def test_an_output_of_known_size_that_is_gone_is_the_same_error(gateway, worker, prompt):
    asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
    held = await worker.claim((await worker.next_job()).id)
    key = "0" * 64 + ".png"
    output = Output(url=f"/storage/{key}", key=key, width=8, height=8, bytes=9)
    await worker.store.apply(
        held.job_id,
        lambda job: complete(
            job, held, outputs=(output,), meta=JobMeta(seed=1, backend="bench"), now=time.time()
        ),
    )
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_full_queue_is_a_429_that_says_when_to_try_again(stage, worker, prompt):
    small = await stage.gateway(max_queued=1)
    async with small.socket() as client:  # its own mirror has to show the first one
        await client.until("job:state", jobId=await client.submit())
    for path in ("/generate", "/v1/jobs"):
        answer = await small.http.post(path, json={"jobType": "generate", "prompt": prompt})
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
    async with small.socket() as client:
        await client.send({"type": "job:submit", "id": 1, "jobType": "generate", "prompt": prompt})
        refusal = await client.until("error")
        assert (refusal["code"], refusal["retryable"]) == ("queue_full", True)
    await worker.do_next()


async def test_no_worker_is_a_503_for_those_who_wait_and_disabled_super_resolution_too(own_stage, prompt):
    gateway = await own_stage.gateway()
    answer = await gateway.http.post("/generate", json={"prompt": prompt})
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    assert int(answer.headers["retry-after"]) > 0
    worker = await own_stage.worker(superres=False)
    async with gateway.socket() as client:
        while (await client.until("system:status"))["workers"] == 0:
            pass
    answer = await gateway.http.post("/generate", json={"prompt": prompt, "superres": True})
    assert (answer.status_code, answer.json()["code"]) == (503, "superres_disabled")
    assert not worker.mirror.queued
