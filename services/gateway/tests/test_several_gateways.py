"""Gateways on one NATS serve each other's jobs."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_job_of_one_gateway_is_followed_cancelled_and_read_through_another(own_stage, prompt):
    one, other = await own_stage.gateway(), await own_stage.gateway()
    worker = await own_stage.worker()
    async with one.socket() as here, other.socket() as there:
        await here.until("system:status", workers=1)
        await there.until("system:status", workers=1)
        first = await here.submit()
        held = await worker.claim(first)
        await worker.progress(held, 1)
        for client in (here, there):
            await client.until("job:progress", jobId=first)
        await worker.complete(held)
        for client in (here, there):
            done = await client.until("job:complete", jobId=first)
        assert (await other.http.get(done["outputs"][0]["url"])).status_code == 200

        second = await here.submit()
        held = await worker.claim(second)
        assert (await other.http.delete(f"/v1/jobs/{second}")).json()["cancelling"] is True
        await worker.cancelled(held)
        error = await here.until("job:error")
        assert (error["jobId"], error["code"]) == (second, "cancelled")

        asked = asyncio.create_task(one.http.post("/generate", json={"prompt": prompt}))
        job = await worker.next_job()
        await there.until("job:state", jobId=job.id)
        await there.send({"type": "job:cancel", "jobId": job.id})
        assert (await asked).status_code == 409


async def test_a_repetition_through_another_gateway_finds_the_first_ones_job(own_stage, prompt):
    one, other = await own_stage.gateway(), await own_stage.gateway()
    body = {"jobType": "generate", "prompt": prompt, "idempotencyKey": "both"}
    answers = await asyncio.gather(
        *(gateway.http.post("/v1/jobs", json=body) for gateway in (one, other) * 5)
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["jobId"] for answer in answers}) == 1
    assert sorted(answer.json()["existing"] for answer in answers) == [False] + [True] * 9


async def test_a_job_read_elsewhere_right_after_its_ack_is_there(own_stage, prompt):
    one, other = await own_stage.gateway(), await own_stage.gateway()
    for _ in range(20):
        answer = await one.http.post("/v1/jobs", json={"jobType": "generate", "prompt": prompt})
        assert (await other.http.get(answer.headers["location"])).json()["state"] == "queued"


async def test_a_gateway_that_leaves_sends_its_sockets_elsewhere_and_its_waits_an_address(own_stage, prompt):
    worker = await own_stage.worker()
    gateway = await own_stage.gateway(drain_s=3)
    async with gateway.socket() as client:
        await client.until("system:status", workers=1)
        asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
        job = await worker.next_job()
        leaving = asyncio.create_task(gateway.leave())
        await client.connection.wait_closed()
        assert client.connection.close_code == 1001
        answer = await asked
        await leaving
    assert (answer.status_code, answer.json()["jobId"]) == (503, job.id)
    assert answer.json()["url"] == f"/v1/jobs/{job.id}"
    next_gateway = await own_stage.gateway()
    await worker.do_next()
    assert (await next_gateway.http.get(answer.json()["url"])).json()["state"] == "completed"
