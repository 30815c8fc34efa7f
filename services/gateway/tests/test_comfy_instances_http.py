"""`/v1/comfy/instances`: administrators say which ComfyUI servers there are; everybody sees how they do."""

from __future__ import annotations

import asyncio
import time

import msgspec
import nats
import pytest
import pytest_asyncio
from msgspec.structs import replace

from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import issue
from reverie_jobs.comfy_instances import COMFY_INSTANCES, change_instance
from reverie_protocol.instances import AuditEvent, ComfyStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"
URL = "http://10.0.0.5:8188"


def bearer(owner, *, admin=False):
    token = issue(SECRET, owner=owner, admin=admin, now=time.time(), lifetime_s=3000)
    return {"Authorization": f"Bearer {token}"}


MINE, ROOT = bearer("me"), bearer("root", admin=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage):
    """The module's gateway, which asks for tokens."""
    return await stage.gateway(auth=AuthSettings(key=SECRET))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bucket(stage, gateway):
    return await (await stage.bus("bench-bridge")).bucket(COMFY_INSTANCES)


async def put(gateway, name="gpu", who=ROOT, **body):
    return await gateway.http.put(f"/v1/comfy/instances/{name}", json=body, headers=who)


async def test_an_instance_is_entered_changed_drained_and_taken_out(gateway, bucket):
    made = await put(gateway, url=URL + "/", tags=["big"])
    assert made.status_code == 201, made.text
    assert (made.json()["url"], made.json()["status"], made.json()["origin"]) == (
        URL,
        "disconnected",
        "admin",
    )
    await change_instance(
        bucket, "gpu", lambda held: held and replace(held, status=ComfyStatus.CONNECTED, version="0.33.0")
    )
    changed = await put(gateway, draining=True, maxPrompts=2)
    assert changed.status_code == 200
    body = changed.json()
    assert (body["draining"], body["maxPrompts"], body["tags"]) == (True, 2, ["big"])
    assert (body["status"], body["version"]) == ("connected", "0.33.0")
    moved = (await put(gateway, url="https://gpu.example/comfy")).json()
    assert (moved["status"], moved["version"], moved["draining"]) == ("disconnected", "", True)
    listed = await gateway.http.get("/v1/comfy/instances", headers=ROOT)
    assert [each["name"] for each in listed.json()["instances"]] == ["gpu"]
    assert (await gateway.http.get("/v1/comfy/instances/gpu", headers=ROOT)).json()["url"] == moved["url"]
    gone = await gateway.http.delete("/v1/comfy/instances/gpu", headers=ROOT)
    assert (gone.status_code, gone.json()["name"]) == (200, "gpu")
    for method in ("GET", "DELETE"):
        answer = await gateway.http.request(method, "/v1/comfy/instances/gpu", headers=ROOT)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("gpu", {}, "url"),
        ("gpu", {"url": "http://169.254.169.254/latest"}, "url"),
        ("gpu", {"url": "file:///etc/passwd"}, "url"),
        ("gpu", {"url": "http://me:secret@gpu"}, "url"),
        ("gpu", {"url": URL, "maxPrompts": 3}, "maxPrompts"),
        ("gpu", {"url": URL, "tags": ["a b"]}, "tags"),
        ("gpu", {"url": URL, "status": "connected"}, "status"),
        ("GPU", {"url": URL}, "name"),
        ("g.pu", {"url": URL}, "name"),
    ],
)
async def test_what_is_wrong_of_an_instance_is_named(gateway, bucket, name, body, field):
    answer = await put(gateway, name, **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert field in {wrong["loc"][1] for wrong in answer.json()["detail"]}
    assert (await gateway.http.get("/v1/comfy/instances", headers=ROOT)).json() == {"instances": []}


async def test_instances_are_administrators_and_what_they_do_is_kept(stage, gateway, bucket):
    for method, path in (
        ("GET", "/v1/comfy/instances"),
        ("GET", "/v1/comfy/instances/gpu"),
        ("PUT", "/v1/comfy/instances/gpu"),
        ("DELETE", "/v1/comfy/instances/gpu"),
    ):
        body = {"url": URL} if method == "PUT" else None
        answer = await gateway.http.request(method, path, json=body, headers=MINE)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    connection = await nats.connect(stage.server.url)
    try:
        subscription = await connection.jetstream().subscribe(
            "audit.>", stream="AUDIT", ordered_consumer=True
        )
        await put(gateway, "audited", url=URL)
        await gateway.http.delete("/v1/comfy/instances/audited", headers=ROOT)
        events = []
        async with asyncio.timeout(20):
            while not events or (events[-1].action, events[-1].target) != (
                "comfy.instance.delete",
                "audited",
            ):
                message = await subscription.next_msg(timeout=20)
                events.append(msgspec.json.decode(message.data, type=AuditEvent))
    finally:
        await connection.close()
    assert [event.action for event in events if event.user == "me" and not event.allowed] == [
        "comfy.instance.read",
        "comfy.instance.read",
        "comfy.instance.put",
        "comfy.instance.delete",
    ]
    [entered] = [
        event for event in events if (event.action, event.target) == ("comfy.instance.put", "audited")
    ]
    assert (entered.user, entered.allowed, entered.detail) == ("root", True, f'{{"url":"{URL}"}}')


async def test_a_graph_of_ones_own_is_for_administrators(stage, gateway):
    await stage.bridge()
    body = {"workflow": {"1": {"class_type": "PreviewImage", "inputs": {}}}}
    for path, extra in (("/v1/comfy/jobs", {}), ("/v1/jobs", {"jobType": "comfy"})):
        answer = await gateway.http.post(path, json={**body, **extra}, headers=MINE)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    taken = await gateway.http.post("/v1/comfy/jobs", json=body, headers=ROOT)
    assert taken.status_code == 200, taken.text
    await gateway.http.delete(f"/v1/comfy/jobs/{taken.json()['id']}", headers=ROOT)


async def test_everybody_is_told_how_the_instances_do_but_not_where_they_are(gateway, bucket):
    async with gateway.socket(additional_headers=MINE) as client:
        assert (await client.until("system:status"))["comfy"] == []
        await put(gateway, "told", url=URL)
        await change_instance(
            bucket,
            "told",
            lambda held: (
                held and replace(held, status=ComfyStatus.CONNECTED, version="0.33.0", queue_pending=2)
            ),
        )
        while True:
            told = (await client.until("system:status"))["comfy"]
            if told and told[0]["status"] == "connected":
                break
        assert told == [
            {
                "name": "told",
                "status": "connected",
                "reason": "",
                "version": "0.33.0",
                "draining": False,
                "queuePending": 2,
                "queueRunning": 0,
            }
        ]
        polled = (await gateway.http.get("/v1/system/status", headers=MINE)).json()
        assert polled["comfy"] == told
    await gateway.http.delete("/v1/comfy/instances/told", headers=ROOT)
