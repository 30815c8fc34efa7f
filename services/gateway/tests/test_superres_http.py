"""`POST /superres`: a picture in, a larger one out, as existing frontends know it."""

from __future__ import annotations

import asyncio
import io

import pytest
import pytest_asyncio
from PIL import Image

from reverie_jobs.transitions import complete
from reverie_protocol.jobs import JobMeta, JobType, Output, SuperResolutionParams
from reverie_storage.port import url_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ["/superres", "/v1/superres"]


def picture(size=(32, 16), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


def form(content=None, **fields):
    return {"files": {"file": ("x.bin", picture() if content is None else content)}, "data": fields}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def enlarger(stage, gateway):
    """The module's worker, which can only enlarge, known to the gateway."""
    worker = await stage.worker(job_types=(JobType.SR,))
    await has_workers(gateway)
    return worker


async def has_workers(gateway):
    async with gateway.socket() as client:
        while (await client.until("system:status"))["workers"] == 0:
            pass


async def enlarge(worker, job, content=b"larger"):
    """Do a job of super-resolution."""
    held = await worker.claim(job.id)
    params = job.params
    media = f"image/{params.out_format}"
    key = await worker.storage.put(content, content_type=media)
    meta = JobMeta(
        seed=0,
        backend="bench",
        sr=True,
        sr_model="bench-sr",
        sr_passes=params.magnitude,
        sr_scale_per_pass=2,
        sr_format=params.out_format,
    )
    outputs = (Output(url=url_of(key), key=key, content_type=media),)
    await worker._end(held, lambda job, now: complete(job, held, outputs=outputs, meta=meta, now=now))


@pytest.mark.parametrize("path", PATHS)
async def test_a_picture_comes_back_larger_with_what_was_done_in_headers(gateway, enlarger, path):
    content = picture()
    fields = {"magnitude": "3", "out_format": "jpeg", "quality": "70", "client_thing": "1"}
    asked = asyncio.create_task(gateway.http.post(path, **form(content, **fields)))
    job = await enlarger.next_job()
    assert (job.type, job.params.magnitude, job.params.out_format, job.params.quality) == (
        JobType.SR,
        3,
        "jpeg",
        70,
    )
    stored = b"".join(
        [part async for part in enlarger.storage.read(job.params.fileRef, start=0, stop=len(content))]
    )
    assert stored == content
    await enlarge(enlarger, job)
    answer = await asked
    assert (answer.status_code, answer.content) == (200, b"larger")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    names = ("x-sr-model", "x-sr-magnitude", "x-sr-passes", "x-sr-scale-per-pass", "x-sr-format")
    assert [answer.headers[name] for name in names] == ["bench-sr", "3", "3", "2", "jpeg"]
    again = await gateway.http.get(f"/storage/{answer.headers['x-lcm-image-key']}")
    assert again.content == b"larger"
    view = (await gateway.http.get(f"/v1/jobs/{answer.headers['x-job-id']}")).json()
    assert (view["type"], view["state"]) == ("sr", "completed")


async def test_without_fields_it_is_two_passes_to_png(gateway, enlarger):
    asked = asyncio.create_task(gateway.http.post("/superres", **form()))
    job = await enlarger.next_job()
    assert job.params == SuperResolutionParams(job.params.fileRef, 2, "png", 92)
    await enlarge(enlarger, job)
    assert (await asked).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"magnitude": "0"}, "magnitude"),
        ({"magnitude": "4"}, "magnitude"),
        ({"magnitude": "two"}, "magnitude"),
        ({"magnitude": "1.5"}, "magnitude"),
        ({"magnitude": ""}, "magnitude"),
        ({"magnitude": "9" * 400}, "magnitude"),
        ({"out_format": "gif"}, "out_format"),
        ({"out_format": "1"}, "out_format"),
        ({"quality": "0"}, "quality"),
        ({"quality": "101"}, "quality"),
    ],
)
async def test_a_wrong_field_is_a_400_that_names_it(gateway, enlarger, fields, named):
    answer = await gateway.http.post("/superres", **form(**fields))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(named)
    assert not enlarger.mirror.queued


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"no picture at all", 415), (picture()[:40], 415)],
)
async def test_what_is_no_picture_makes_no_job(gateway, enlarger, content, status):
    answer = await gateway.http.post("/superres", **form(content))
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)
    assert not enlarger.mirror.queued


async def test_a_form_without_a_file_is_a_422_that_names_it(gateway, enlarger):
    answer = await gateway.http.post("/superres", files={"other": ("x", b"y")})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "file"]


async def test_a_result_beyond_what_is_made_is_refused_before_there_is_a_job(gateway, enlarger):
    answer = await gateway.http.post("/superres", **form(picture((2100, 8)), magnitude="2"))
    assert answer.status_code == 400
    assert "8192" in answer.json()["detail"]
    assert not enlarger.mirror.queued


async def test_too_large_a_file_is_a_413(stage, enlarger):
    small = await stage.gateway(storage_settings={"upload_mb": 0.01})
    await has_workers(small)
    answer = await small.http.post("/superres", **form(b"x" * 20_000))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_what_only_the_worker_finds_wrong_is_a_400_too(gateway, enlarger):
    asked = asyncio.create_task(gateway.http.post("/superres", **form()))
    held = await enlarger.claim((await enlarger.next_job()).id)
    await enlarger.fail(held, "invalid_field", "the result would be 32768 pixels wide")
    answer = await asked
    assert (answer.status_code, answer.json()["jobId"]) == (400, held.job_id)
    assert "32768" in answer.json()["detail"]


async def test_a_failed_job_is_a_500_with_its_own_code(gateway, enlarger):
    asked = asyncio.create_task(gateway.http.post("/superres", **form()))
    held = await enlarger.claim((await enlarger.next_job()).id)
    await enlarger.fail(held, "out_of_memory")
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (500, "out_of_memory")


async def test_a_repetition_under_the_same_key_gets_the_same_picture(gateway, enlarger):
    key = {"Idempotency-Key": "once-larger"}
    asked = asyncio.create_task(gateway.http.post("/superres", **form(), headers=key))
    await enlarge(enlarger, await enlarger.next_job(), b"the one")
    first = await asked
    again = await gateway.http.post("/superres", **form(), headers=key)
    assert again.content == first.content == b"the one"
    other = await gateway.http.post("/superres", **form(magnitude="1"), headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_nobody_who_enlarges_is_a_503_before_the_picture_is_read(own_stage):
    gateway = await own_stage.gateway()
    answer = await gateway.http.post("/superres", **form(b"not looked at"))
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    await own_stage.worker(superres=False, job_types=(JobType.GENERATE, JobType.SR))
    await has_workers(gateway)
    answer = await gateway.http.post("/superres", **form(b"not looked at"))
    assert (answer.status_code, answer.json()["code"]) == (503, "superres_disabled")


async def test_a_job_from_a_socket_takes_an_uploaded_picture(gateway, enlarger):
    sent = await gateway.http.post("/v1/upload", files={"file": ("x.png", picture())})
    async with gateway.socket() as client:
        reference = f"fileRef:{sent.json()['fileRef']}"
        await client.send(
            {"type": "job:submit", "id": 1, "jobType": "sr", "fileRef": reference, "magnitude": 1}
        )
        job_id = (await client.until("job:ack", id=1))["jobId"]
        job = await enlarger.next_job()
        await enlarge(enlarger, job)
        done = await client.until("job:complete", jobId=job_id)
        assert done["meta"]["sr"] is True
        assert done["meta"]["srModel"] == "bench-sr"


async def test_a_reference_to_a_picture_too_large_for_its_passes_is_refused_by_name(gateway, enlarger):
    sent = await gateway.http.post("/v1/upload", files={"file": ("x.png", picture((2100, 8)))})
    body = {"jobType": "sr", "fileRef": sent.json()["fileRef"], "magnitude": 2}
    answer = await gateway.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "magnitude"]
    assert "8192" in answer.json()["detail"][0]["msg"]
    assert not enlarger.mirror.queued
