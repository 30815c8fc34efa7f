"""`/v1/jobs`: submit, look, list, cancel."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEW = {
    "jobId",
    "type",
    "state",
    "priority",
    "position",
    "attempt",
    "progress",
    "outputs",
    "error",
    "meta",
    "partial",
    "timestamps",
    "seq",
}


async def submit(gateway, prompt="a red circle", headers=None, **fields):
    body = {"jobType": "generate", "prompt": prompt, **fields}
    return await gateway.http.post("/v1/jobs", json=body, headers=headers)


async def view(gateway, job_id):
    return (await gateway.http.get(f"/v1/jobs/{job_id}")).json()


async def test_a_submit_answers_with_the_job_and_where_to_follow_it(gateway, worker, prompt):
    answer = await submit(gateway, priority="batch")
    assert answer.status_code == 202
    job_id = answer.json()["jobId"]
    assert answer.headers["location"] == answer.json()["url"] == f"/v1/jobs/{job_id}"
    assert answer.json()["state"] == "queued"
    shown = await view(gateway, job_id)
    assert shown.keys() >= VIEW
    assert (shown["state"], shown["type"], shown["priority"], shown["position"]) == (
        "queued",
        "generate",
        2,
        0,
    )
    assert (shown["progress"], shown["error"], shown["meta"], shown["outputs"]) == (0, None, None, [])
    assert shown["params"]["prompt"] == prompt[:12]
    await worker.do_next()


async def test_polling_tells_the_life_of_a_job(gateway, worker):
    job_id = (await submit(gateway)).json()["jobId"]
    held = await worker.claim(job_id)
    async with gateway.socket() as client:
        await client.until("job:state", state="running")
        await worker.progress(held, 1)
        await client.until("job:progress")
        shown = await view(gateway, job_id)
        assert (shown["state"], shown["attempt"], shown["position"]) == ("running", 1, None)
        assert (shown["progress"], shown["step"], shown["steps"], shown["phase"]) == (0.25, 1, 4, "denoising")
        await worker.complete(held)
        pushed = await client.until("job:complete")
    shown = await view(gateway, job_id)
    assert (shown["state"], shown["progress"], shown["seq"]) == ("completed", 1, pushed["seq"])
    assert (shown["outputs"], shown["meta"]) == (pushed["outputs"], pushed["meta"])
    stamps = shown["timestamps"]
    assert stamps["createdAt"] <= stamps["startedAt"] <= stamps["finishedAt"] == stamps["updatedAt"]


async def test_the_same_key_finds_the_first_job_in_header_and_body_alike(gateway, worker):
    first = (await submit(gateway, headers={"Idempotency-Key": "k1"})).json()
    again = await submit(gateway, idempotencyKey="k1")
    assert (again.status_code, again.json()["jobId"], again.json()["existing"]) == (202, first["jobId"], True)
    other = await submit(gateway, prompt="something else", idempotencyKey="k1")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    both = await submit(gateway, headers={"Idempotency-Key": "k1"}, idempotencyKey="k2")
    assert (both.status_code, both.json()["detail"][0]["type"]) == (422, "conflict")
    long = await submit(gateway, headers={"Idempotency-Key": "k" * 201})
    assert long.status_code == 422
    await worker.do_next()


async def test_unknown_fields_are_refused_by_name(gateway, worker):
    answer = await submit(gateway, sead=1, priorty=2)
    assert answer.status_code == 422
    entries = {tuple(entry["loc"]): entry for entry in answer.json()["detail"]}
    assert set(entries) == {("body", "sead"), ("body", "priorty")}
    assert "seed" in entries["body", "sead"]["msg"]


async def test_a_job_waits_for_a_worker_that_is_away_but_not_for_one_that_never_was(own_stage):
    gateway = await own_stage.gateway()
    waiting = await submit(gateway, mode="anything")
    assert waiting.status_code == 202
    never = await gateway.http.post("/v1/jobs", json={"jobType": "comfy", "workflowId": "w"})
    assert (never.status_code, never.json()["code"]) == (502, "comfy_unreachable")
    async with gateway.socket() as client:
        await client.until("job:state", jobId=waiting.json()["jobId"], state="queued")


async def test_a_waiting_job_is_cancelled_at_once_and_again_changes_nothing(gateway, worker):
    job_id = (await submit(gateway)).json()["jobId"]
    first = await gateway.http.delete(f"/v1/jobs/{job_id}")
    again = await gateway.http.delete(f"/v1/jobs/{job_id}")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert first.json()["state"] == "cancelled"
    assert first.json()["error"]["code"] == "cancelled"


async def test_a_running_job_is_asked_to_stop_its_worker_gets_a_hint_and_its_partial_output_is_kept(
    gateway, worker
):
    job_id = (await submit(gateway)).json()["jobId"]
    held = await worker.claim(job_id)
    answer = await gateway.http.delete(f"/v1/jobs/{job_id}")
    assert (answer.json()["state"], answer.json()["cancelling"]) == ("running", True)
    assert await worker.hints.get() == job_id
    await worker.cancelled(held, partial=b"half a picture")
    shown = await view(gateway, job_id)
    assert (shown["state"], shown["partial"], shown["cancelling"]) == ("cancelled", True, False)
    assert (await gateway.http.get(shown["outputs"][0]["url"])).content == b"half a picture"


async def test_a_finished_job_stays_finished_when_it_is_cancelled(gateway, worker):
    job_id = (await submit(gateway)).json()["jobId"]
    await worker.do_next()
    assert (await gateway.http.delete(f"/v1/jobs/{job_id}")).json()["state"] == "completed"


@pytest.mark.parametrize(
    "job_id", ["none", "0" * 32, "a.b", "*", ">", "a b", "%00", "..%2f..", "é", "x" * 500]
)
async def test_an_id_that_names_no_job_is_a_404_however_it_looks(gateway, worker, job_id):
    for method in ("GET", "DELETE"):
        answer = await gateway.http.request(method, f"/v1/jobs/{job_id}")
        assert answer.status_code == 404, answer.text
        assert answer.json()["code"] in ("job_not_found", "not_found")


async def test_the_list_is_newest_first_in_pages_and_by_state(own_stage):
    gateway = await own_stage.gateway()
    worker = await own_stage.worker()
    ids = [(await submit(gateway)).json()["jobId"] for _ in range(5)]
    for job_id in ids:
        await worker.sees(job_id)
    await gateway.http.delete(f"/v1/jobs/{ids[0]}")
    page = (await gateway.http.get("/v1/jobs", params={"limit": 2})).json()
    assert [job["jobId"] for job in page["jobs"]] == ids[:2:-1]
    assert page["total"] == 5
    rest = []
    while page["cursor"]:
        page = (await gateway.http.get("/v1/jobs", params={"limit": 2, "cursor": page["cursor"]})).json()
        rest += [job["jobId"] for job in page["jobs"]]
    assert rest == ids[2::-1]
    queued = (await gateway.http.get("/v1/jobs", params={"state": "queued"})).json()["jobs"]
    assert [job["position"] for job in queued] == [3, 2, 1, 0]
    ended = (await gateway.http.get("/v1/jobs?state=cancelled,failed")).json()["jobs"]
    assert [job["jobId"] for job in ended] == [ids[0]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=done", "state"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=²", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=W10", "cursor"),
        ("cursor=é", "cursor"),
        ("page=2", "page"),
    ],
)
async def test_a_wrong_parameter_of_the_list_is_named(gateway, worker, query, field):
    answer = await gateway.http.get(f"/v1/jobs?{query}")
    assert answer.status_code == 422
    assert [entry["loc"] for entry in answer.json()["detail"]] == [["query", field]]
