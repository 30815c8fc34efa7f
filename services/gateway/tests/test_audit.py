"""Who did what to whose job: administrators' deeds on `audit.>`, kept by the stream `AUDIT`."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import msgspec
import nats
import pytest
import pytest_asyncio

from reverie_gateway.audit import Auditor
from reverie_gateway.identity import Identity
from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import issue
from reverie_protocol.instances import AuditEvent
from reverie_runtime.bus.port import BusUnavailable
from reverie_testing.clock import VirtualClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"
PATIENCE_S = 20.0


def bearer(owner, *, admin=False):
    token = issue(SECRET, owner=owner, admin=admin, now=time.time(), lifetime_s=600)
    return {"Authorization": f"Bearer {token}"}


MINE, ROOT = bearer("me"), bearer("root", admin=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage):
    """The module's gateway, which asks for tokens."""
    return await stage.gateway(auth=AuthSettings(key=SECRET))


@asynccontextmanager
async def audit_log(stage):
    """What the stream has kept and keeps, as a plain NATS client reads it."""
    connection = await nats.connect(stage.server.url)
    try:
        subscription = await connection.jetstream().subscribe(
            "audit.>", stream="AUDIT", ordered_consumer=True
        )

        async def take():
            message = await subscription.next_msg(timeout=PATIENCE_S)
            event = msgspec.json.decode(message.data, type=AuditEvent)
            assert message.subject == f"audit.{event.action}"
            return event

        yield take
    finally:
        await connection.close()


async def test_what_an_administrator_does_to_others_and_to_the_queue_is_kept_with_his_name(stage, gateway):
    submit = {"jobType": "generate", "prompt": "a secret prompt"}
    job_id = (await gateway.http.post("/v1/jobs", json=submit, headers=MINE)).json()["jobId"]
    own = (await gateway.http.post("/v1/jobs", json=submit, headers=MINE)).json()["jobId"]
    url = f"/v1/jobs/{job_id}"
    await gateway.http.patch(url, json={"priority": "batch"}, headers=ROOT)
    answer = await gateway.http.delete(url, headers=ROOT)
    await gateway.http.delete(f"/v1/jobs/{own}", headers=MINE)  # one's own business
    await gateway.http.post(f"{url}/retry", headers=ROOT)
    await gateway.http.patch("/v1/queue", json={"lanes": {"batch": {"paused": True}}}, headers=ROOT)
    assert (await gateway.http.patch("/v1/queue", json={}, headers=MINE)).status_code == 403
    async with audit_log(stage) as take:
        kept = [await take() for _ in range(5)]
    assert [(event.action, event.user, event.target, event.allowed) for event in kept] == [
        ("job.priority", "root", job_id, True),
        ("job.cancel", "root", job_id, True),
        ("job.retry", "root", job_id, True),
        ("queue.control", "root", "", True),
        ("queue.control", "me", "", False),
    ]
    assert kept[1].request_id == answer.headers["x-request-id"]
    assert "me" in kept[1].detail
    assert "batch" in kept[3].detail
    assert not any("secret prompt" in event.detail for event in kept)


async def test_events_wait_in_order_for_a_stream_that_is_away(virtual_clock: VirtualClock):
    class Away:
        name = "AUDIT"
        away = True

        def __init__(self):
            self.kept = []

        async def append(self, subject, data):
            if self.away:
                raise BusUnavailable("away")
            self.kept.append((subject, msgspec.json.decode(data)["target"]))
            return len(self.kept)

    stream = Away()
    auditor = Auditor(stream, clock=virtual_clock)
    async with auditor.run():
        for target in ("one", "two"):
            auditor.note("job.cancel", Identity("root", admin=True), target=target)
        await virtual_clock.advance(5)
        assert stream.kept == []
        stream.away = False
        async with asyncio.timeout(PATIENCE_S):
            while len(stream.kept) < 2:
                await virtual_clock.advance(1)
    assert stream.kept == [("audit.job.cancel", "one"), ("audit.job.cancel", "two")]
