"""Priorities, places, deadlines and retries, over HTTP and WebSocket."""

from __future__ import annotations

import time

import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAR = time.time() + 30 * 86_400


async def submit(gateway, **fields):
    body = {"jobType": "generate", "prompt": "a red circle", **fields}
    answer = await gateway.http.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["jobId"]


async def view(gateway, job_id):
    return (await gateway.http.get(f"/v1/jobs/{job_id}")).json()


async def patch(gateway, job_id, **body):
    return await gateway.http.patch(f"/v1/jobs/{job_id}", json=body)


async def waiting(gateway, worker, ids):
    """These jobs in the order in which the worker would claim them."""
    for job_id in ids:
        await worker.sees(job_id)
    rows = (await gateway.http.get("/v1/queue")).json()["jobs"]
    return [row["jobId"] for row in rows if row.get("jobId") in ids]


@pytest_asyncio.fixture(loop_scope="module")
async def three(gateway, worker):
    """Three waiting jobs of one lane, first come first; cancelled afterwards."""
    ids = [await submit(gateway) for _ in range(3)]
    yield ids
    for job_id in ids:
        await gateway.http.delete(f"/v1/jobs/{job_id}")


async def test_a_move_is_answered_with_its_place_and_told_as_an_event(gateway, worker, three):
    async with gateway.socket() as client:
        message = {"type": "job:priority", "id": 7, "jobId": three[2], "priority": "urgent"}
        await client.send(message)
        answer = await client.until("job:priority:ok")
        told = {"type": "job:priority:ok", "id": 7, "jobId": three[2], "priority": 0, "position": 0}
        assert answer == told
        if not any(seen.get("priority") == 0 for seen in client.seen if seen["type"] == "job:state"):
            await client.until("job:state", jobId=three[2], priority=0)
    assert (await view(gateway, three[2]))["priority"] == 0
    assert await waiting(gateway, worker, three) == [three[2], three[0], three[1]]


@pytest.mark.parametrize(
    ("moved", "to", "order"),
    [
        (2, {"place": "front"}, [2, 0, 1]),
        (0, {"place": "back"}, [1, 2, 0]),
        (2, {"before": 1}, [0, 2, 1]),
        (0, {"after": 1}, [1, 0, 2]),
        (0, {"position": 1}, [1, 0, 2]),
        (0, {"position": 99}, [1, 2, 0]),
        (2, {"position": 0}, [2, 0, 1]),
    ],
)
async def test_a_waiting_job_goes_where_it_is_told(gateway, worker, three, moved, to, order):
    place = {name: three[to[name]] if name in ("before", "after") else value for name, value in to.items()}
    answer = await patch(gateway, three[moved], **place)
    assert (answer.status_code, answer.json()["position"]) == (200, order.index(moved))
    expected = [three[index] for index in order]
    assert await waiting(gateway, worker, three) == expected
    again = await patch(gateway, three[moved], **place)
    assert (again.json()["seq"], await waiting(gateway, worker, three)) == (answer.json()["seq"], expected)


async def test_a_job_moves_to_a_lane_and_a_place_in_it_at_once(gateway, worker, three):
    await patch(gateway, three[0], priority=2)
    await patch(gateway, three[1], priority="batch", before=three[0])
    assert await waiting(gateway, worker, three) == [three[2], three[1], three[0]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "priority"),
        ({"priority": "soon"}, "priority"),
        ({"priority": 0, "place": "front", "position": 3}, "place"),
        ({"position": -1}, "position"),
        ({"place": "middle"}, "place"),
        ({"before": "nobody"}, "before"),
        ({"prio": 1}, "prio"),
    ],
)
async def test_a_move_that_makes_no_sense_is_refused_by_field(gateway, worker, three, body, field):
    answer = await patch(gateway, three[0], **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert ["body", field] in [entry["loc"] for entry in answer.json()["detail"]]


async def test_a_job_stands_beside_another_of_its_lane_only(gateway, worker, three):
    await patch(gateway, three[2], priority="urgent")
    for place in ({"before": three[2]}, {"after": three[0]}):
        assert (await patch(gateway, three[0], **place)).status_code == 422


async def test_a_running_job_takes_the_lane_and_no_place(gateway, worker):
    job_id = await submit(gateway)
    held = await worker.claim(job_id)
    before = await worker.sees(job_id, lambda job: job.state == "running")
    answer = await patch(gateway, job_id, priority="urgent", place="front")
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["state"], shown["priority"], shown["position"]) == ("running", 0, None)
    record = await worker.sees(job_id, lambda job: job.priority == 0)
    assert (record.position, record.attempt) == (before.position, before.attempt)
    await worker.complete(held)
    over = await patch(gateway, job_id, priority="batch")
    assert (over.status_code, over.json()["code"]) == (409, "job_finished")
    async with gateway.socket() as client:
        await client.send({"type": "job:priority", "id": "x", "jobId": job_id, "priority": 1})
        assert (await client.until("error", id="x"))["code"] == "job_finished"


async def test_a_job_that_is_not_there_cannot_be_moved_or_retried(gateway, worker):
    assert (await patch(gateway, "0" * 32, priority=0)).status_code == 404
    assert (await gateway.http.post(f"/v1/jobs/{'0' * 32}/retry")).status_code == 404
    async with gateway.socket() as client:
        await client.send({"type": "job:priority", "id": 1, "jobId": "none", "priority": 0})
        assert (await client.until("error"))["code"] == "job_not_found"


async def test_a_failed_job_is_retried_once_as_a_new_job_that_names_it(gateway, worker):
    job_id = await submit(gateway, seed=11, priority="batch")
    await worker.fail(await worker.claim(job_id), "out_of_memory")
    first = await gateway.http.post(f"/v1/jobs/{job_id}/retry")
    again = await gateway.http.post(f"/v1/jobs/{job_id}/retry")
    assert (first.status_code, again.status_code) == (202, 202)
    new = first.json()["jobId"]
    assert first.headers["location"] == f"/v1/jobs/{new}"
    assert (again.json()["jobId"], first.json()["existing"], again.json()["existing"]) == (new, False, True)
    shown = await view(gateway, new)
    assert (shown["retryOf"], shown["params"]["seed"], shown["priority"]) == (job_id, 11, 2)
    assert (await view(gateway, job_id))["state"] == "failed"
    still = await gateway.http.post(f"/v1/jobs/{new}/retry")
    assert (still.status_code, still.json()["code"]) == (409, "job_not_retryable")
    await worker.complete(await worker.claim(new))
    for ended in (new, job_id):
        answer = await gateway.http.post(f"/v1/jobs/{ended}/retry")
        expected = (409, "job_not_retryable") if ended == new else (202, None)
        assert (answer.status_code, answer.json().get("code")) == expected


async def test_a_cancelled_retry_is_retried_as_a_job_of_its_own(gateway, worker):
    job_id = await submit(gateway)
    ids = [job_id]
    for _ in range(2):
        await gateway.http.delete(f"/v1/jobs/{ids[-1]}")
        ids.append((await gateway.http.post(f"/v1/jobs/{ids[-1]}/retry")).json()["jobId"])
    assert len(set(ids)) == 3
    await gateway.http.delete(f"/v1/jobs/{ids[-1]}")


@pytest.mark.parametrize("limit", ["startBy", "finishBy"])
async def test_a_limit_that_no_job_could_keep_is_refused_and_a_repetition_never_is(gateway, worker, limit):
    body = {"jobType": "generate", "prompt": "x"}
    past = await gateway.http.post("/v1/jobs", json={**body, limit: time.time() - 1})
    early = await gateway.http.post("/v1/jobs", json={**body, limit: FAR, "notBefore": FAR + 1})
    for answer in (past, early):
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", limit])
    async with gateway.socket() as client:
        await client.send({"type": "job:submit", "id": 1, **body, limit: 5})
        [field] = (await client.until("error"))["fields"]
        assert field["loc"] == [limit]


@pytest.mark.parametrize("limit", ["notBefore", "startBy", "finishBy"])
@pytest.mark.parametrize("at", [1e300, 253402300799.0, 4_000_000_000_000])
async def test_a_limit_that_is_no_time_of_this_age_is_refused(gateway, worker, limit, at):
    answer = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": "x", limit: at})
    [field] = answer.json()["detail"]
    assert (answer.status_code, field["loc"]) == (422, ["body", limit])
    assert "year" in field["msg"]


async def test_a_job_that_does_not_start_in_time_fails_with_deadline_exceeded(gateway, worker):
    async with gateway.socket() as client:
        limit = time.time() + 0.3
        key = f"late {limit}"
        job_id = await client.submit(startBy=limit, idempotencyKey=key)
        ended = await client.until("job:error", jobId=job_id)
        assert (ended["state"], ended["code"]) == ("failed", "deadline_exceeded")
        # Who lost the answer may ask again, also when the limit has passed.
        assert await client.submit(startBy=limit, idempotencyKey=key) == job_id


async def test_a_running_job_that_is_not_done_in_time_fails_under_its_worker(gateway, worker):
    job_id = await submit(gateway, finishBy=time.time() + 1)
    await worker.claim(job_id)
    ended = await worker.sees(job_id, lambda job: job.state.terminal)
    assert (ended.state, ended.error.code) == ("failed", "deadline_exceeded")


async def test_a_job_waits_for_its_time_and_says_so(gateway, worker):
    job_id = await submit(gateway, notBefore=FAR)
    await worker.sees(job_id)
    assert worker.mirror.waiting.choose(worker.record, now=time.time()) is None
    assert "notBefore" in (await view(gateway, job_id))["waitingFor"]
    await gateway.http.delete(f"/v1/jobs/{job_id}")
    assert (await view(gateway, job_id))["waitingFor"] is None


async def test_a_job_without_a_worker_says_what_it_waits_for(own_stage):
    gateway = await own_stage.gateway()
    job_id = await submit(gateway)
    assert (await view(gateway, job_id))["waitingFor"].startswith("no worker for generate jobs")
