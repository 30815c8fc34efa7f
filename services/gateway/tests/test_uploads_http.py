"""A picture from a client to the job that needs it, whatever its 300 seconds say; and all that is refused."""

from __future__ import annotations

import asyncio
import io
import os
import re
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from reverie_gateway.settings import AuthSettings
from reverie_gateway.sweeper import LEASES, Sweeper
from reverie_gateway.tokens import issue
from reverie_protocol.jobs import JobState, JobType
from reverie_storage.port import content_key
from reverie_storage.sweeping import GRACE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"
_CHANNELS = 3


def picture(kind="PNG", side=32, seed=None):
    pixels = (seed if seed is not None else os.urandom(1)) * (side * side * _CHANNELS)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels[: side * side * _CHANNELS]).save(buffer, kind)
    return buffer.getvalue()


def bearer(owner):
    return {"Authorization": f"Bearer {issue(SECRET, owner=owner, now=time.time(), lifetime_s=600)}"}


async def send(gateway, content, *, name="file", **options):
    return await gateway.http.post("/v1/upload", files={name: ("x.bin", content, "text/html")}, **options)


async def uploaded(gateway, content=None, **options):
    answer = await send(gateway, content or picture(), **options)
    assert answer.status_code == 200, answer.text
    return answer.json()["fileRef"]


async def record_of(worker, job_id):
    return (await worker.sees(job_id)).params


async def test_an_upload_gives_a_reference_of_32_hexadecimal_digits(gateway):
    answer = await send(gateway, picture())
    assert answer.status_code == 200
    assert answer.json().keys() == {"fileRef"}
    assert re.fullmatch("[0-9a-f]{32}", answer.json()["fileRef"])
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("prefix", ["", "fileRef:"])
async def test_a_job_record_holds_the_storage_key_of_what_was_uploaded(gateway, worker, prefix):
    await worker.beat(job_types=(JobType.GENERATE, JobType.SR))
    content = picture("JPEG")
    reference = prefix + await uploaded(gateway, content)
    key = content_key(content, content_type="image/jpeg")
    for _ in range(2):  # a reference may be used several times
        accepted = await gateway.http.post("/v1/jobs", json={"jobType": "sr", "fileRef": reference})
        assert accepted.status_code == 202, accepted.text
        job_id = accepted.json()["jobId"]
        assert (await record_of(worker, job_id)).fileRef == key
        await gateway.http.delete(f"/v1/jobs/{job_id}")
    assert (await gateway.http.get(f"/storage/{key}")).content == content


async def test_every_path_to_a_job_takes_references(gateway, worker):
    init, mask = picture(), picture()
    keys = [content_key(content, content_type="image/png") for content in (init, mask)]
    fields = {
        "initImage": await uploaded(gateway, init),
        "maskImage": f"fileRef:{await uploaded(gateway, mask)}",
    }
    async with gateway.socket() as client:
        by_socket = await client.submit(params={"prompt": "x", **fields}, prompt="x")
    over_http = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": "x", **fields})
    for job_id in (by_socket, over_http.json()["jobId"]):
        params = await record_of(worker, job_id)
        assert [params.initImage, params.maskImage] == keys
        await gateway.http.delete(f"/v1/jobs/{job_id}")
        await worker.sees(job_id, lambda job: job.state is JobState.CANCELLED)
    legacy = asyncio.create_task(gateway.http.post("/generate", json={"prompt": "x", **fields}))
    job = await worker.next_job()
    assert [job.params.initImage, job.params.maskImage] == keys
    await gateway.http.delete(f"/v1/jobs/{job.id}")
    assert (await legacy).status_code == 409


async def test_the_key_of_an_earlier_output_is_taken_as_it_is(gateway, worker, stage):
    key = await stage.storage.put(picture(), content_type="image/png")
    accepted = await gateway.http.post(
        "/v1/jobs", json={"jobType": "generate", "prompt": "x", "initImage": key}
    )
    assert (await record_of(worker, accepted.json()["jobId"])).initImage == key
    await gateway.http.delete(f"/v1/jobs/{accepted.json()['jobId']}")


@pytest.mark.parametrize("reference", ["0" * 32, "fileRef:x", "0" * 64 + ".png"])
async def test_a_reference_that_leads_nowhere_is_refused_by_its_field_before_there_is_a_job(
    gateway, worker, reference
):
    before = len(worker.mirror)
    body = {"jobType": "generate", "prompt": "x", "initImage": reference}
    answer = await gateway.http.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    assert "initImage" in answer.json()["detail"]
    async with gateway.socket() as client:
        await client.send({"type": "job:submit", "id": 7, **body})
        error = await client.until("error")
    assert (error["id"], error["code"], error["fields"][0]["loc"]) == (7, "file_not_found", ["initImage"])
    assert len(worker.mirror) == before


async def test_a_repeated_submit_finds_its_job_after_the_reference_has_gone(gateway, worker, stage):
    reference = await uploaded(gateway)
    body = {"jobType": "generate", "prompt": "x", "initImage": reference}
    headers = {"Idempotency-Key": os.urandom(8).hex()}
    first = await gateway.http.post("/v1/jobs", json=body, headers=headers)
    for path in (stage.storage_folder / "named" / "upload").rglob("*"):
        if path.is_file():
            path.unlink()
    again = await gateway.http.post("/v1/jobs", json=body, headers=headers)
    assert (again.status_code, again.json()["jobId"]) == (202, first.json()["jobId"])
    assert again.json()["existing"]
    other = await gateway.http.post("/v1/jobs", json=body | {"prompt": "y"}, headers=headers)
    assert other.json()["code"] == "idempotency_conflict"
    await gateway.http.delete(f"/v1/jobs/{first.json()['jobId']}")


async def test_a_jobs_picture_outlives_its_reference_and_serves_the_retry(gateway, worker, stage):
    content = picture()
    reference = await uploaded(gateway, content)
    body = {"jobType": "generate", "prompt": "x", "initImage": reference}
    job_id = (await gateway.http.post("/v1/jobs", json=body)).json()["jobId"]
    key = (await record_of(worker, job_id)).initImage
    later = SimpleNamespace(time=lambda: time.time() + GRACE_S + 3600)
    leases = await worker.bus.bucket(LEASES)
    sweeper = Sweeper(stage.storage, worker.mirror, leases, clock=later, quota_bytes=1)
    assert (await sweeper.sweep()).expired
    assert (await gateway.http.get(f"/storage/{key}")).content == content
    expired = await gateway.http.post("/v1/jobs", json=body)
    assert expired.json()["code"] == "file_not_found"
    await gateway.http.delete(f"/v1/jobs/{job_id}")
    await worker.sees(job_id, lambda job: job.state is JobState.CANCELLED)
    retry = await gateway.http.post(f"/v1/jobs/{job_id}/retry")
    assert retry.status_code == 202, retry.text
    assert (await record_of(worker, retry.json()["jobId"])).initImage == key
    await gateway.http.delete(f"/v1/jobs/{retry.json()['jobId']}")


async def test_a_reference_is_its_owners_alone(stage):
    gateway = await stage.gateway(auth=AuthSettings(key=SECRET))
    await stage.worker()
    assert (await send(gateway, picture())).status_code == 401
    reference = await uploaded(gateway, headers=bearer("ann"))
    body = {"jobType": "generate", "prompt": "x", "initImage": reference}
    mine = await gateway.http.post("/v1/jobs", json=body, headers=bearer("ann"))
    his = await gateway.http.post("/v1/jobs", json=body, headers=bearer("bob"))
    unknown = await gateway.http.post("/v1/jobs", json=body | {"initImage": "0" * 32}, headers=bearer("bob"))
    assert (mine.status_code, his.status_code) == (202, 404)
    assert his.json()["detail"] == unknown.json()["detail"]
    await gateway.http.delete(f"/v1/jobs/{mine.json()['jobId']}", headers=bearer("ann"))
    await gateway.leave()


REFUSED = {
    "nothing": (b"", 400, "invalid_upload"),
    "no picture": (b"<html></html>", 415, "unsupported_media_type"),
    "a truncated picture": (picture("JPEG", 200, os.urandom(120_000))[:5000], 415, "unsupported_media_type"),
    "a polyglot": (picture() + b"PK\3\4", 415, "unsupported_media_type"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_picture_is_refused_with_the_reason(gateway, name):
    content, status, code = REFUSED[name]
    answer = await send(gateway, content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["requestId"]


async def test_forms_that_are_none_are_refused(gateway):
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc'
    for content, headers, status, code in (
        (b"{}", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
        (b"", {}, 415, "unsupported_media_type"),
        (part, boundary, 400, "invalid_upload"),  # cut short
        (b"nonsense", boundary, 400, "invalid_upload"),
        (b"--b--\r\n", boundary, 422, "invalid_field"),
        (part + b"\r\n--b--", {"Content-Type": "multipart/form-data"}, 400, "invalid_upload"),
        (part + b"\r\n--b--", boundary | {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        (b"--b\r\n\r\nx\r\n" * 2000 + b"--b--", boundary, 400, "invalid_upload"),
        (b"--b\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\nz\r\n--b--", boundary, 400, "invalid_upload"),
    ):
        answer = await gateway.http.post("/v1/upload", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), content[:40]
    wrong_name = await send(gateway, picture(), name="image")
    assert (wrong_name.status_code, wrong_name.json()["detail"][0]["loc"]) == (422, ["body", "file"])


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
async def test_a_file_beyond_the_limit_is_refused_and_leaves_nothing_behind(stage, told, tmp_path):
    gateway = await stage.gateway(storage_settings={"upload_mb": 1.0})
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        + picture()
        + bytes(4 << 20)
        + b"\r\n--b--\r\n"
    )

    async def chunks():
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await gateway.http.post("/v1/upload", content=body if told else chunks(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "1 MiB" in answer.json()["detail"]
    assert (await send(gateway, picture())).status_code == 200
    await gateway.leave()


async def test_too_many_pixels_are_refused_by_the_header(stage):
    gateway = await stage.gateway(storage_settings={"upload_megapixels": 0.001})
    assert (await send(gateway, picture(side=31))).status_code == 200
    answer = await send(gateway, picture(side=32))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "0.001" in answer.json()["detail"]
    await gateway.leave()


async def test_a_store_that_is_away_is_a_503_for_uploads_and_for_jobs_that_need_them(stage, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("no folder")
    gateway = await stage.gateway(storage_path=broken)
    await stage.worker()
    answer = await send(gateway, picture())
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    body = {"jobType": "generate", "prompt": "x", "initImage": "0" * 32}
    answer = await gateway.http.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    await gateway.leave()


async def test_half_an_upload_leaves_no_file(gateway, monkeypatch, tmp_path):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = (
        "POST /v1/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    writer.write(head.encode() + bytes(5000))
    await writer.drain()
    async with asyncio.timeout(20):
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0.01)
        writer.close()
        while list(tmp_path.iterdir()):
            await asyncio.sleep(0.01)


async def test_files_that_arrive_at_once_are_bounded_together(stage):
    narrow = await stage.gateway(storage_settings={"upload_mb": 0.1})
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    head = (
        b"POST /v1/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 110000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    half_sent = [await asyncio.open_connection("127.0.0.1", narrow.port) for _ in range(16)]
    for _, writer in half_sent:
        writer.write(head + part + bytes(104_000))
        await writer.drain()
    answer = await send(narrow, bytes(50_000))
    while answer.status_code != 429:  # their bytes are still on their way
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_upload")
        answer = await send(narrow, bytes(50_000))
    assert answer.json()["code"] == "rate_limited"
    assert int(answer.headers["retry-after"]) >= 1
    for _, writer in half_sent:
        writer.close()
        await writer.wait_closed()
    while answer.status_code == 429:
        answer = await send(narrow, picture())
    assert answer.status_code == 200
    await narrow.leave()
