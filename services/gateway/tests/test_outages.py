"""NATS dies and comes back: sockets stay open, waits go on, nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import time

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def lost(gateway):
    """Return once the gateway knows that the bus is away."""
    gone = asyncio.Event()
    gateway.bus.on_connection(lambda connected: None if connected else gone.set())
    if gateway.bus.connected:
        async with asyncio.timeout(20):
            await gone.wait()


async def test_while_nats_is_away_submits_are_refused_promptly_and_sockets_stay_open(own_stage, prompt):
    gateway = await own_stage.gateway()
    await own_stage.busy_worker()
    async with gateway.socket() as client:
        await client.submit()
        done = await client.until("job:complete")
        own_stage.server.kill()
        await lost(gateway)
        body = {"jobType": "generate", "prompt": prompt}
        for path in ("/generate", "/v1/jobs"):
            started = time.monotonic()
            answer = await gateway.http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable"), answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert time.monotonic() - started < 5
        await client.send({"type": "job:submit", "id": 1, **body})
        refusal = await client.until("error")
        assert (refusal["id"], refusal["code"], refusal["retryable"]) == (1, "service_unavailable", True)
        ready = await gateway.http.get("/ready")
        assert (ready.status_code, "nats" in ready.json()["reasons"]) == (503, True)
        assert (await gateway.http.get("/health")).status_code == 200
        assert (await gateway.http.get(f"/v1/jobs/{done['jobId']}")).json()["state"] == "completed"
        assert (await gateway.http.get(done["outputs"][0]["url"])).status_code == 200
        own_stage.server.start()
        while True:
            await client.send({"type": "job:submit", "id": 2, **body})
            answer = await client.until("job:ack", "error")
            if answer["type"] == "job:ack":
                break
            await asyncio.sleep(0.02)
        await client.until("job:complete", jobId=answer["jobId"])
    assert (await gateway.http.get("/ready")).status_code == 200


async def test_a_killed_nats_in_mid_wait_only_delays_the_picture(own_stage, prompt):
    gateway = await own_stage.gateway()
    worker = await own_stage.worker()
    async with gateway.socket() as client:
        await client.until("system:status", workers=1)
        asked = asyncio.create_task(gateway.http.post("/generate", json={"prompt": prompt}))
        held = await worker.claim((await worker.next_job()).id)
        await worker.progress(held, 1)
        await client.until("job:progress", step=1)
        own_stage.server.kill()
        await lost(gateway)
        known = (await gateway.http.get(f"/v1/jobs/{held.job_id}")).json()
        assert (known["state"], known["step"]) == ("running", 1)
        own_stage.server.start()
        back = asyncio.Event()
        worker.bus.on_connection(lambda connected: back.set() if connected else None)
        if not worker.bus.connected:
            async with asyncio.timeout(20):
                await back.wait()
        await worker.complete(held)
        await client.until("job:complete", jobId=held.job_id)
        answer = await asked
    assert answer.status_code == 200
    assert answer.headers["x-job-id"] == held.job_id
    assert client.types(held.job_id).count("job:complete") == 1


async def test_a_frozen_nats_is_a_prompt_503_and_the_refused_job_never_runs(own_stage, prompt):
    gateway = await own_stage.gateway()
    worker = await own_stage.worker()
    own_stage.server.pause()
    try:
        answer = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": prompt})
        assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    finally:
        own_stage.server.resume()
    again = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": prompt})
    while again.status_code == 503:
        await asyncio.sleep(0.05)
        again = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": prompt})
    accepted = again.json()["jobId"]
    await worker.sees(accepted)
    for job in list(worker.mirror):
        if job.id != accepted:
            await worker.sees(job.id, lambda job: job.state == "cancelled")
    assert list(worker.mirror.queued) == [accepted]
