"""`POST /generate`: one picture in the answer, and every way in which there is none."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(gateway, worker, body, **options):
    """The answer to a request that the worker carries out."""
    asked = asyncio.create_task(gateway.http.post("/generate", json=body, **options))
    await worker.do_next()
    return await asked


async def test_the_answer_is_the_picture_and_its_headers_say_how_it_was_made(gateway, worker, prompt):
    answer = await ask(gateway, worker, {"prompt": prompt, "seed": 7, "mode": "tiny"})
    assert answer.status_code == 200
    headers = answer.headers
    job_id = headers["x-job-id"]
    assert answer.content == f"picture {job_id}".encode()
    assert headers["content-type"] == "image/png"
    assert headers["content-length"] == str(len(answer.content))
    assert headers["cache-control"] == "no-store"
    assert (headers["x-seed"], headers["x-mode"], headers["x-superres"]) == ("7", "tiny", "0")
    assert headers["x-backend"] == "bench"
    assert not [name for name in headers if name.startswith("x-sr-")]
    stored = await gateway.http.get(f"/storage/{headers['x-lcm-image-key']}")
    assert stored.content == answer.content
    assert (await gateway.http.get(f"/v1/jobs/{job_id}")).json()["state"] == "completed"
