"""A client that was away misses nothing: on any gateway, after any restart, over the socket and as a stream."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRANSITIONS = ("job:state", "job:complete", "job:error")


def transitions(messages: list[dict[str, Any]], job_ids: set[str]) -> list[tuple[int, str]]:
    """Revision and kind of every transition of these jobs, as they came."""
    return [
        (message["seq"], message["type"])
        for message in messages
        if message["type"] in TRANSITIONS and message["jobId"] in job_ids
    ]


async def away(gateway, worker) -> tuple[int, str, str]:
    """A job that somebody saw queued; a cursor and its epoch from that moment; it completes while he is away."""
    async with gateway.socket() as client:
        job_id = await client.submit()
        await client.until("job:state", jobId=job_id)
        await client.send({"type": "hello"})
        told = await client.until("hello:ok")
    held = await worker.claim(job_id)
    await worker.complete(held)
    await worker.sees(job_id, lambda job: job.state.terminal)
    return told["seq"], told["epoch"], job_id


async def test_every_transition_missed_comes_once_and_in_order_and_nothing_else(gateway, worker) -> None:
    cursor, epoch, job_id = await away(gateway, worker)
    async with gateway.socket() as client:
        await client.send({"type": "resume", "id": 1, "cursor": cursor, "epoch": epoch})
        resumed = await client.until("resumed")
        assert (resumed["recovered"], resumed["from"], resumed["id"]) == (True, cursor, 1)
        await client.until("job:complete", jobId=job_id)
        await client.settle()
    seen = transitions(client.seen, {job_id})
    assert [kind for _, kind in seen] == ["job:state", "job:complete"]
    assert all(seq > cursor for seq, _ in seen)


async def test_another_gateway_started_later_resumes_just_as_well(stage, gateway, worker) -> None:
    cursor, epoch, job_id = await away(gateway, worker)
    other = await stage.gateway()
    async with other.socket() as client:
        await client.send({"type": "hello", "cursor": cursor, "epoch": epoch})
        assert (await client.until("resumed"))["recovered"]
        await client.until("job:complete", jobId=job_id)
    assert [kind for _, kind in transitions(client.seen, {job_id})] == ["job:state", "job:complete"]
    await other.leave()


@pytest.mark.parametrize("lost", ["an epoch of another bucket", "a cursor from the future"])
async def test_a_cursor_that_cannot_be_served_is_answered_with_the_current_state(
    gateway, worker, lost: str
) -> None:
    async with gateway.socket() as first:
        job_id = await first.submit()
        held = await worker.claim(job_id)
        await first.until("job:state", jobId=job_id, state="running")  # the gateway knows it too
    cursor = {"an epoch of another bucket": {"cursor": 0, "epoch": "1999-01-01"}}.get(lost, {"cursor": 10**9})
    async with gateway.socket() as client:
        await client.send({"type": "resume", **cursor})
        assert not (await client.until("resumed"))["recovered"]
        assert (await client.until("job:state", jobId=job_id))["state"] == "running"
        await worker.complete(held)
        await client.until("job:complete", jobId=job_id)
    assert len(transitions(client.seen, {job_id})) == 2


async def test_a_resume_asked_for_late_tells_everything_after_its_cursor_once_and_in_order(
    gateway, worker
) -> None:
    cursor, epoch, past_id = await away(gateway, worker)
    async with gateway.socket() as client:
        job_id = await client.submit()
        held = await worker.claim(job_id)
        await client.until("job:state", jobId=job_id, state="running")
        await client.send({"type": "resume", "cursor": cursor, "epoch": epoch})
        await client.until("resumed")
        before = len(client.seen)
        await client.until("job:complete", jobId=past_id)
        await worker.complete(held)
        await client.until("job:complete", jobId=job_id)
    told = transitions(client.seen[before:], {past_id, job_id})
    assert told == sorted(set(told))
    assert [kind for _, kind in transitions(client.seen[before:], {past_id})] == ["job:state", "job:complete"]
    kinds = [kind for _, kind in transitions(client.seen[before:], {job_id})]
    assert kinds == ["job:state", "job:state", "job:complete"]


async def test_a_job_that_ends_while_its_client_is_slow_to_resume_is_told_from_its_cursor_on_in_order(
    gateway, worker
) -> None:
    async with gateway.socket() as first:
        job_id = await first.submit()
        await first.until("job:state", jobId=job_id)
        await first.send({"type": "hello"})
        cursor = (await first.until("hello:ok"))["seq"]
    async with gateway.socket() as client:
        held = await worker.claim(job_id)
        await worker.complete(held)
        await client.until("job:complete", jobId=job_id)
        await client.send({"type": "resume", "cursor": cursor})
        await client.until("resumed")
        before = len(client.seen)
        await client.until("job:complete", jobId=job_id)
        await client.settle()
    told = transitions(client.seen[before:], {job_id})
    assert [kind for _, kind in told] == ["job:state", "job:complete"]
    assert told == sorted(told)


async def test_a_client_that_does_not_resume_is_told_the_current_state_by_itself(gateway, worker) -> None:
    async with gateway.socket() as first:
        job_id = await first.submit()
    held = await worker.claim(job_id)
    async with gateway.socket() as client:
        assert (await client.until("job:state", jobId=job_id))["state"] == "running"
        await worker.complete(held)
        await client.until("job:complete", jobId=job_id)


async def test_a_repeated_submit_is_told_the_whole_story_of_its_job(gateway, worker) -> None:
    async with gateway.socket() as client:
        job_id = await client.submit(idempotencyKey="story")
    held = await worker.claim(job_id)
    await worker.complete(held)
    await worker.sees(job_id, lambda job: job.state.terminal)
    async with gateway.socket() as again:
        assert await again.submit(idempotencyKey="story") == job_id
        await again.until("job:complete", jobId=job_id)
    told = transitions(again.seen, {job_id})
    assert [kind for _, kind in told] == ["job:state", "job:state", "job:complete"]


async def test_a_client_cut_off_at_random_moments_has_every_transition_once_and_in_order(
    stage, gateway, worker
) -> None:
    other = await stage.gateway()
    chance = random.Random(7)
    log: list[dict[str, Any]] = []
    job_ids: set[str] = set()
    async with gateway.socket() as first:
        await first.send({"type": "hello"})
        told = await first.until("hello:ok")
    cursor, epoch = told["seq"], told["epoch"]

    async def work() -> None:
        for _ in range(12):
            async with gateway.socket() as submitting:
                job_id = await submitting.submit()
            job_ids.add(job_id)
            await worker.complete(await worker.claim(job_id))

    working = asyncio.create_task(work())
    done: set[str] = set()
    while not working.done() or done != job_ids:
        place = chance.choice([gateway, other])
        async with place.socket() as client:
            await client.send({"type": "resume", "cursor": cursor, "epoch": epoch})
            assert (await client.until("resumed"))["recovered"]
            for _ in range(chance.randrange(4)):
                if working.done() and done == job_ids:
                    break
                message = await client.until(*TRANSITIONS)
                log.append(message)
                cursor = message["seq"]
                if message["type"] == "job:complete":
                    done.add(message["jobId"])
    await working
    told_once = transitions(log, job_ids)
    assert told_once == sorted(set(told_once))
    assert len(told_once) == 3 * len(job_ids)
    await other.leave()


@asynccontextmanager
async def stream(gateway, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """Server-sent events as their fields."""
    async with (
        httpx.AsyncClient(timeout=20, trust_env=False) as http,
        http.stream("GET", f"{gateway.url}/v1/events", headers=headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")

        async def events() -> AsyncIterator[dict[str, str]]:
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if not line:
                    yield fields
                    fields = {}
                else:
                    name, _, value = line.partition(": ")
                    fields[name] = value

        yield events()


async def until_event(events: AsyncIterator[dict[str, str]], kind: str) -> dict[str, str]:
    async with asyncio.timeout(20):
        async for event in events:
            if event.get("event") == kind:
                return event
    raise AssertionError(f"the stream ended without {kind}")


async def test_a_stream_tells_the_same_story_and_goes_on_where_it_was_cut(gateway, worker) -> None:
    async with stream(gateway) as events:
        start = await until_event(events, "hello:ok")
        async with gateway.socket() as client:
            job_id = await client.submit()
        queued = await until_event(events, "job:state")
        assert json.loads(queued["data"])["jobId"] == job_id
    held = await worker.claim(job_id)
    await worker.complete(held)
    await worker.sees(job_id, lambda job: job.state.terminal)
    async with stream(gateway, **{"Last-Event-ID": queued["id"]}) as events:
        assert json.loads((await until_event(events, "resumed"))["data"])["recovered"]
        assert json.loads((await until_event(events, "job:state"))["data"])["state"] == "running"
        assert json.loads((await until_event(events, "job:complete"))["data"])["jobId"] == job_id
    assert start["id"].rpartition(":")[2].isdigit()


async def test_a_wrong_last_event_id_is_refused_by_name(gateway) -> None:
    answer = await gateway.http.get("/v1/events", headers={"Last-Event-ID": "yesterday"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "Last-Event-ID"]
