"""The queue as people see it, and its gates: `queue:state`, `GET` and `PATCH /v1/queue`."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="module")

GATE = {"paused": True}


async def submit(gateway, **fields):
    body = {"jobType": "generate", "prompt": "a red circle", **fields}
    return await gateway.http.post("/v1/jobs", json=body)


async def control(gateway, **body):
    return await gateway.http.patch("/v1/queue", json=body)


@pytest_asyncio.fixture(loop_scope="module")
async def gates(gateway, worker):
    """All gates are open before and after."""
    yield
    shut = (await gateway.http.get("/v1/queue")).json()["controls"]
    opened = {"queue": {}} | {kind: {name: {} for name in shut[kind]} for kind in ("lanes", "workers")}
    answer = await control(gateway, **opened)
    assert answer.json()["controls"] == {"queue": {}, "lanes": {}, "workers": {}}


async def test_the_queue_is_pushed_as_it_changes_and_polling_shows_the_same(gateway, worker):
    async with gateway.socket() as client:
        job_id = await client.submit(priority="batch")
        state = await client.until("queue:state", pending=1)
        assert (state["running"], state["depth"], state["paused"]) == (0, 1, False)
        [row] = state["jobs"]
        enqueued_at = row.pop("enqueuedAt")
        assert row == {
            "jobId": job_id,
            "type": "generate",
            "state": "queued",
            "priority": 2,
            "position": 0,
        }
        assert enqueued_at > 0
        held = await worker.claim(job_id)
        state = await client.until("queue:state", running=1)
        assert "etaSeconds" not in state["jobs"][0]
        polled = (await gateway.http.get("/v1/queue")).json()
        assert polled == {
            **{name: value for name, value in state.items() if name != "type"},
            "controls": {"queue": {}, "lanes": {}, "workers": {}},
        }
        await worker.complete(held)
        await client.until("queue:state", depth=0)
        types = [message["type"] for message in client.seen]
        # The platform did not change: the queue alone was told.
        assert types.count("system:status") <= 2


async def test_a_running_job_tells_when_it_will_be_done_from_the_time_its_steps_take(gateway, worker):
    async with gateway.socket() as client:
        job_id = await client.submit()
        held = await worker.claim(job_id)
        await worker.progress(held, 1, steps=5, step_seconds=2.5)
        while True:
            state = await client.until("queue:state")
            if state["jobs"] and "etaSeconds" in state["jobs"][0]:
                break
        assert state["jobs"][0]["etaSeconds"] == 10.0
        [told] = [message for message in client.seen if message["type"] == "job:progress"]
        assert told["etaSeconds"] == 10.0
        await worker.complete(held)


async def test_a_paused_queue_takes_jobs_but_says_that_they_wait(gateway, worker, gates):
    async with gateway.socket() as client:
        answer = await control(gateway, queue=GATE)
        assert (answer.status_code, answer.json()["paused"]) == (200, True)
        assert answer.json()["controls"]["queue"] == GATE
        await client.until("queue:state", paused=True)
        accepted = await submit(gateway)
        assert accepted.status_code == 202
        job_id = accepted.json()["jobId"]
        await worker.sees(job_id)
        assert (await gateway.http.get(f"/v1/jobs/{job_id}")).json()["waitingFor"] == "the queue is paused"
        assert (await gateway.http.get("/v1/system/status")).json()["queueState"]["paused"] is True
        resumed = await control(gateway, queue={})
        assert resumed.json()["paused"] is False
        await client.until("queue:state", paused=False)
        await gateway.http.delete(f"/v1/jobs/{job_id}")


async def test_a_paused_lane_or_worker_is_named_as_what_a_job_waits_for(gateway, worker, gates):
    job_id = (await submit(gateway, priority="batch")).json()["jobId"]
    await worker.sees(job_id)

    async def obstacle():
        return (await gateway.http.get(f"/v1/jobs/{job_id}")).json()["waitingFor"]

    assert await obstacle() is None
    await control(gateway, lanes={"batch": GATE})
    assert await obstacle() == "lane batch is paused"
    await control(gateway, lanes={"batch": {}}, workers={worker.record.name: {"draining": True}})
    assert await obstacle() == "the workers that could do it are paused or draining"
    await gateway.http.delete(f"/v1/jobs/{job_id}")


async def test_a_draining_lane_refuses_new_jobs_with_a_time_to_come_back_and_finds_old_ones(
    gateway, worker, gates
):
    first = (await submit(gateway, priority="batch", idempotencyKey="drained")).json()["jobId"]
    await worker.sees(first)
    await control(gateway, lanes={"batch": {"draining": True}})
    refused = await submit(gateway, priority="batch")
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) > 0
    async with gateway.socket() as client:
        await client.send(
            {"type": "job:submit", "id": 1, "jobType": "generate", "prompt": "x", "priority": 2}
        )
        assert (await client.until("error"))["code"] == "draining"
    again = await submit(gateway, priority="batch", idempotencyKey="drained")
    assert (again.status_code, again.json()["jobId"]) == (202, first)
    other = await submit(gateway, priority="normal")
    assert other.status_code == 202
    await gateway.http.delete(f"/v1/jobs/{first}")
    retried = await gateway.http.post(f"/v1/jobs/{first}/retry")
    assert (retried.status_code, retried.json()["code"]) == (503, "draining")
    await gateway.http.delete(f"/v1/jobs/{other.json()['jobId']}")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"lanes": {"fast": GATE}}, ["body", "lanes", "fast"]),
        ({"queue": {"pause": True}}, ["body", "queue", "pause"]),
        ({"workers": {"a b": GATE}}, ["body", "workers", "a b"]),
        ({"all": GATE}, ["body", "all"]),
    ],
)
async def test_gates_that_there_are_not_are_refused_by_name(gateway, worker, body, loc):
    answer = await control(gateway, **body)
    assert answer.status_code == 422
    assert loc in [entry["loc"] for entry in answer.json()["detail"]]


async def test_every_gateway_shows_and_keeps_the_same_gates(stage, gateway, worker, gates):
    other = await stage.gateway()
    async with other.socket() as client:
        await control(gateway, queue={"draining": True})
        while (await other.http.get("/v1/queue")).json()["controls"]["queue"] != {"draining": True}:
            await client.settle()
        assert (await submit(other)).json()["code"] == "draining"


async def test_other_services_hear_the_queue_change_without_anybodys_ids(stage, gateway, worker):
    heard: asyncio.Queue[dict] = asyncio.Queue()

    async def hear(message):
        heard.put_nowait(json.loads(message.data))

    async def until(**fields):
        async with asyncio.timeout(20):
            while True:
                state = await heard.get()
                if fields.items() <= state.items():
                    return state

    bus = await stage.bus("another-service")
    subscription = await bus.subscribe("queue.state", hear)
    async with gateway.socket() as client:
        job_id = await client.submit()
        state = await until(pending=1)
        [row] = state["jobs"]
        assert "jobId" not in row
        assert (row["state"], row["position"]) == ("queued", 0)
        held = await worker.claim(job_id)
        running = await until(pending=0, running=1)
        assert running["seq"] > state["seq"]
        assert running["epoch"] == state["epoch"]
        await worker.complete(held)
        await until(depth=0, jobs=[])
    await subscription.unsubscribe()
