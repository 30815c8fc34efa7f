"""A job is seen, followed and changed by its owner and by administrators; to everybody else it does not exist."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import msgspec
import pytest
import pytest_asyncio

from reverie_gateway.app import Parts, build_app
from reverie_gateway.session import REQUESTS
from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import issue
from reverie_protocol.registry import message_type

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"
SUBMIT = {"jobType": "generate", "prompt": "x"}
COMFY = {"jobType": "comfy", "workflowId": "w"}

#: Every operation on one job, by HTTP: method, path, body.
BY_HTTP = {
    "read": ("GET", "/v1/jobs/{job_id}", None),
    "move": ("PATCH", "/v1/jobs/{job_id}", {"priority": "urgent", "place": "front"}),
    "cancel": ("DELETE", "/v1/jobs/{job_id}", None),
    "retry": ("POST", "/v1/jobs/{job_id}/retry", None),
    "comfy-read": ("GET", "/v1/comfy/jobs/{job_id}", None),
    "comfy-cancel": ("DELETE", "/v1/comfy/jobs/{job_id}", None),
}
#: The same on the WebSocket: type, fields beside `jobId`, type of the answer.
BY_SOCKET = {
    "preview": ("job:preview", {}, "job:preview:ok"),
    "move": ("job:priority", {"priority": 0, "place": "back"}, "job:priority:ok"),
    "cancel": ("job:cancel", {}, "job:cancel:ok"),
}


def bearer(owner, *, admin=False):
    token = issue(SECRET, owner=owner, admin=admin, now=time.time(), lifetime_s=3000)
    return {"Authorization": f"Bearer {token}"}


MINE, THEIRS, ADMIN = bearer("me"), bearer("they"), bearer("root", admin=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage):
    """The module's gateway, which asks for tokens."""
    return await stage.gateway(auth=AuthSettings(key=SECRET))


@pytest_asyncio.fixture(loop_scope="module")
async def worker(stage, gateway):
    """A worker that the gateway knows."""
    async with AsyncExitStack() as stack:
        await stage.bridge()
        worker = await stage.worker()
        client = await stack.enter_async_context(gateway.socket(additional_headers=MINE))
        while not (await client.until("system:status"))["workers"]:
            continue
        yield worker


async def submitted(gateway, who, **fields):
    body = fields if "jobType" in fields else SUBMIT | fields
    answer = await gateway.http.post("/v1/jobs", json=body, headers=who)
    assert answer.status_code == 202, answer.text
    return answer.json()["jobId"]


async def rows(client):
    """Of the queue, as the next message about it says: the status at first, then the queue's own."""
    message = await client.until("system:status", "queue:state")
    return message.get("queueState", message)["jobs"]


async def asked(client, kind, job_id, **fields):
    await client.send({"type": kind, "id": "q", "jobId": job_id, **fields})
    while True:
        message = await client.next()
        if isinstance(message, dict) and message.get("id") == "q":
            return message


async def test_every_operation_on_a_job_is_in_the_tables():
    app = build_app(Parts(**dict.fromkeys(Parts.__struct_fields__)))
    served = {
        (method, route.path.replace(":str}", "}"))
        for route in app.routes
        for method in getattr(route, "methods", ())
        if "job_id" in route.path and method not in ("OPTIONS", "HEAD")
    }
    assert served == {(method, path) for method, path, _ in BY_HTTP.values()}
    requests = {
        message_type(request)
        for request in REQUESTS
        if "job_id" in {field.name for field in msgspec.structs.fields(request)}
    }
    assert requests == {kind for kind, _, _ in BY_SOCKET.values()}


@pytest.mark.parametrize("operation", BY_HTTP)
async def test_over_http_a_job_exists_for_its_owner_and_administrators_only(gateway, worker, operation):
    method, path, body = BY_HTTP[operation]
    for who, allowed in ((THEIRS, False), (ADMIN, True), (MINE, True)):
        job_id = await submitted(gateway, MINE, **(COMFY if operation.startswith("comfy") else {}))
        if operation == "retry":  # only what has ended without a result
            await gateway.http.delete(f"/v1/jobs/{job_id}", headers=MINE)
        before = (await gateway.http.get(f"/v1/jobs/{job_id}", headers=MINE)).json()
        answer = await gateway.http.request(method, path.format(job_id=job_id), json=body, headers=who)
        if allowed:
            assert answer.status_code < 300, answer.text
        else:
            absent = await gateway.http.request(method, path.format(job_id="0" * 32), json=body, headers=who)
            assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
            assert (
                answer.text.replace(job_id, "0" * 32).split('"requestId"')[0]
                == absent.text.split('"requestId"')[0]
            )
            assert (await gateway.http.get(f"/v1/jobs/{job_id}", headers=MINE)).json() == before
        for made in {job_id, answer.json().get("jobId", job_id)}:
            await gateway.http.delete(f"/v1/jobs/{made}", headers=MINE)


@pytest.mark.parametrize("operation", BY_SOCKET)
async def test_on_the_socket_a_job_exists_for_its_owner_and_administrators_only(gateway, worker, operation):
    kind, fields, answer_kind = BY_SOCKET[operation]
    for who, allowed in ((THEIRS, False), (ADMIN, True), (MINE, True)):
        job_id = await submitted(gateway, MINE)
        async with gateway.socket(additional_headers=who) as client:
            answer = await asked(client, kind, job_id, **fields)
            if allowed:
                assert answer["type"] == answer_kind
            else:
                absent = await asked(client, kind, "0" * 32, **fields)
                assert answer["code"] == "job_not_found"
                assert answer == {**absent, "message": absent["message"].replace("0" * 32, job_id)}
        await gateway.http.delete(f"/v1/jobs/{job_id}", headers=MINE)


async def test_a_socket_hears_nothing_of_others_jobs(gateway, worker):
    async with (
        gateway.socket(additional_headers=MINE) as mine,
        gateway.socket(additional_headers=THEIRS) as theirs,
    ):
        await theirs.send({"type": "hello", "previews": True})
        await theirs.until("hello:ok")
        job_id = await submitted(gateway, MINE)
        await mine.send({"type": "job:preview", "jobId": job_id})
        await mine.until("job:preview:ok")
        held = await worker.claim(job_id)
        await worker.progress(held, 1)
        await mine.until("job:progress")
        await worker.preview(held)
        await mine.until_picture()
        await worker.complete(held)
        await mine.until("job:complete")
        await theirs.send({"type": "resume", "cursor": 0})
        await theirs.until("resumed")
        await theirs.settle()
    assert job_id not in str(theirs.seen)
    assert theirs.pictures == []
    async with gateway.socket(additional_headers=THEIRS) as late:
        await late.settle()
    assert job_id not in str(late.seen)


async def test_rows_of_the_queue_name_the_jobs_of_their_reader_only(gateway, worker):
    job_id = await submitted(gateway, MINE)
    async with gateway.socket(additional_headers=MINE) as mine:
        while [row.get("jobId") for row in await rows(mine)] != [job_id]:
            continue
    for who, shown in ((MINE, [job_id]), (THEIRS, [None]), (ADMIN, [job_id])):
        status = (await gateway.http.get("/v1/system/status", headers=who)).json()
        assert [row.get("jobId") for row in status["queueState"]["jobs"]] == shown
        async with gateway.socket(additional_headers=who) as client:
            assert [row.get("jobId") for row in await rows(client)] == shown
    await gateway.http.delete(f"/v1/jobs/{job_id}", headers=MINE)


async def test_a_list_holds_ones_own_jobs_and_an_administrator_may_ask_for_others(gateway, worker):
    me, they = bearer("lister"), bearer("other")
    async with gateway.socket(additional_headers=ADMIN) as admin:
        mine, theirs = await submitted(gateway, me), await submitted(gateway, they)
        while not {mine, theirs} <= {row.get("jobId") for row in await rows(admin)}:
            continue

    async def listed(who, query=""):
        page = (await gateway.http.get(f"/v1/jobs?state=queued{query}", headers=who)).json()
        assert page["total"] == len(page["jobs"])
        return {job["jobId"] for job in page["jobs"]}

    assert await listed(me) == await listed(me, "&owner=lister") == await listed(me, "&owner=*") == {mine}
    assert await listed(me, "&owner=other") == set()
    assert await listed(ADMIN) == set()
    assert await listed(ADMIN, "&owner=other") == {theirs}
    assert {mine, theirs} <= await listed(ADMIN, "&owner=*")
    for who, job_id in ((me, mine), (they, theirs)):
        await gateway.http.delete(f"/v1/jobs/{job_id}", headers=who)


async def test_while_nats_is_away_somebody_elses_job_looks_like_none(own_stage):
    gateway = await own_stage.gateway(auth=AuthSettings(key=SECRET))
    await own_stage.worker()
    async with gateway.socket(additional_headers=MINE) as mine:
        while not (await mine.until("system:status"))["workers"]:
            continue
        job_id = await mine.submit()
        await mine.until("job:state", jobId=job_id)
    own_stage.server.kill()
    for method in ("GET", "DELETE"):
        answers = [
            await gateway.http.request(method, f"/v1/jobs/{name}", headers=THEIRS)
            for name in (job_id, "0" * 32)
        ]
        assert answers[0].status_code == answers[1].status_code == 503
    assert (await gateway.http.get(f"/v1/jobs/{job_id}", headers=MINE)).status_code == 200


async def test_the_same_key_of_another_owner_names_another_job(gateway, worker):
    keyed = {**SUBMIT, "idempotencyKey": "same"}
    answers = [
        (await gateway.http.post("/v1/jobs", json=keyed, headers=who)).json() for who in (MINE, THEIRS)
    ]
    assert answers[0]["jobId"] != answers[1]["jobId"]
    assert answers[1]["existing"] is False
    for who, answer in ((MINE, answers[0]), (THEIRS, answers[1])):
        await gateway.http.delete(f"/v1/jobs/{answer['jobId']}", headers=who)


async def test_a_job_moves_beside_its_owners_own_jobs_only_and_others_stay_unknown(gateway, worker):
    own, foreign = await submitted(gateway, MINE), await submitted(gateway, THEIRS)
    answers = [
        await gateway.http.patch(f"/v1/jobs/{own}", json={"before": beside}, headers=MINE)
        for beside in (foreign, "0" * 32)
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
    for job_id in (own, foreign):
        await gateway.http.delete(f"/v1/jobs/{job_id}", headers=ADMIN)


async def test_only_administrators_open_and_close_gates_while_everybody_sees_them(gateway, worker):
    body = {"lanes": {"background": {"paused": True}}}
    refused = await gateway.http.patch("/v1/queue", json=body, headers=MINE)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await gateway.http.patch("/v1/queue", json=body)).status_code == 401
    assert (await gateway.http.patch("/v1/queue", json=body, headers=ADMIN)).status_code == 200
    seen = (await gateway.http.get("/v1/queue", headers=MINE)).json()["controls"]
    assert seen["lanes"] == body["lanes"]
    await gateway.http.patch("/v1/queue", json={"lanes": {"background": {}}}, headers=ADMIN)


async def test_the_pushed_queue_shows_everybody_his_own_ids_and_administrators_all(gateway, worker):
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(gateway.socket(additional_headers=who))
            for who in (MINE, THEIRS, bearer("stranger"), ADMIN)
        ]
        ids = [await submitted(gateway, who) for who in (MINE, THEIRS)]
        seen = []
        for client in clients:
            state = await client.until("queue:state", pending=2)
            assert len(state["jobs"]) == 2
            seen.append({row["jobId"] for row in state["jobs"] if "jobId" in row})
        assert seen == [{ids[0]}, {ids[1]}, set(), set(ids)]
        for job_id in ids:
            await gateway.http.delete(f"/v1/jobs/{job_id}", headers=ADMIN)


@pytest.mark.parametrize("path", ["/api/modes/switch", "/api/modes/reload"])
async def test_only_administrators_change_modes_and_everybody_sees_them(gateway, worker, path):
    body = {"mode": "tiny"}
    refused = await gateway.http.post(path, json=body, headers=MINE)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await gateway.http.post(path, json=body)).status_code == 401
    assert (await gateway.http.post(path, json=body, headers=ADMIN)).status_code in (200, 400)
    assert "tiny" in (await gateway.http.get("/api/modes", headers=MINE)).json()["modes"]
