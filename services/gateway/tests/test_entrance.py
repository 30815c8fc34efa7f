"""A socket says who it is, and is held to it."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from reverie_gateway import entrance
from reverie_gateway.outbox import Outbox
from reverie_gateway.settings import AuthSettings
from reverie_gateway.socket import read_frames
from reverie_gateway.tokens import issue
from reverie_protocol.errors import CLOSE_UNAUTHENTICATED

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"


def token(owner="me", *, lifetime_s=600, **options):
    return issue(SECRET, owner=owner, now=time.time(), lifetime_s=lifetime_s, **options)


def authenticate(text, **fields):
    return {"type": "AUTHENTICATE", "sessionToken": text, **fields}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage):
    """The module's gateway, which asks for tokens."""
    return await stage.gateway(auth=AuthSettings(key=SECRET))


async def closed(client):
    """The code that the socket is closed with."""
    try:
        while True:
            await client.next()
    except ConnectionClosed as end:
        return end.rcvd.code


async def test_the_first_message_may_be_the_proof(gateway):
    async with gateway.socket() as client:
        await client.send(authenticate(token(admin=True), id=7))
        first = await client.next()
        assert first["type"] == "AUTHENTICATED"
        assert (first["id"], first["user"], first["admin"]) == (7, "me", True)
        assert 500 < first["expiresAt"] - time.time() <= 600
        await client.until("system:status")
        await client.settle()


async def test_before_it_nothing_is_answered_but_that_a_proof_is_needed(gateway):
    async with gateway.socket() as client:
        frames = [
            {"type": "ping", "id": 0},
            {"type": "hello", "id": 1, "previews": True},
            {"type": "resume", "id": 2, "cursor": 0},
            {"type": "job:submit", "id": 3, "jobType": "generate", "prompt": "x"},
            {"type": "job:cancel", "id": 4, "jobId": "abc"},
            {"type": "nonsense", "id": 5},
            authenticate("nonsense", id=6),
            authenticate(issue(SECRET, owner="me", now=time.time() - 700, lifetime_s=600), id=7),
        ]
        for frame in frames:
            await client.send(frame)
            answer = await client.next()
            assert (answer["type"], answer["code"], answer["id"]) == ("error", "unauthenticated", frame["id"])
        for raw in ("{", b"binary"):
            await client.connection.send(raw)
            assert (await client.next())["code"] == "unauthenticated"
        await client.send(authenticate(token()))
        assert (await client.next())["type"] == "AUTHENTICATED"
        await client.settle()


async def test_a_token_in_the_address_lets_nobody_in(gateway):
    async with gateway.socket(query=f"?token={token()}") as client:
        await client.send({"type": "ping"})
        assert (await client.next())["code"] == "unauthenticated"


async def test_a_socket_that_does_not_say_who_it_is_is_closed(gateway, monkeypatch):
    monkeypatch.setattr(entrance, "AUTHENTICATE_S", 0.2)
    async with gateway.socket() as client:
        assert await closed(client) == 4401
    assert client.seen == []


async def test_a_socket_is_closed_when_its_token_ends(gateway):
    headers = {"Authorization": f"Bearer {token(lifetime_s=2)}"}
    async with gateway.socket() as one, gateway.socket(additional_headers=headers) as other:
        await one.send(authenticate(token(lifetime_s=2)))
        assert await asyncio.gather(closed(one), closed(other)) == [4401, 4401]


async def test_a_later_token_of_the_same_owner_prolongs_it_and_no_other_does(gateway):
    async with gateway.socket(
        additional_headers={"Authorization": f"Bearer {token(lifetime_s=3)}"}
    ) as client:
        await client.until("system:status")
        for other, code in (
            (token("they"), "forbidden"),
            (token(admin=True), "forbidden"),
            ("x", "unauthenticated"),
        ):
            await client.send(authenticate(other, id=1))
            assert (await client.until("error"))["code"] == code
        await client.send(authenticate(token(), id=2))
        told = await client.until("AUTHENTICATED")
        assert (told["id"], told["user"]) == (2, "me")
        async with gateway.socket(
            additional_headers={"Authorization": f"Bearer {token(lifetime_s=3)}"}
        ) as short:
            assert await closed(short) == 4401
        await client.settle()


async def test_what_a_client_says_on_a_socket_that_is_to_be_closed_counts_no_more():
    outbox = Outbox()
    frames = [{"type": "websocket.receive", "text": text} for text in ("before", "after")]

    class Sending:
        async def receive(self):
            if len(frames) == 1:
                outbox.close(CLOSE_UNAUTHENTICATED)
            return frames.pop(0) if frames else {"type": "websocket.disconnect"}

    assert [frame async for frame in read_frames(Sending(), outbox)] == ["before"]


async def test_the_event_stream_ends_with_its_token(gateway):
    headers = {"Authorization": f"Bearer {token(lifetime_s=2)}"}
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        answer = await http.get(f"{gateway.url}/v1/events", headers=headers)
    assert "system:status" in answer.text


async def test_where_no_proof_is_needed_one_may_be_given(stage):
    gateway = await stage.gateway()
    async with gateway.socket() as client:
        await client.until("system:status")
        await client.send(authenticate("anything", id=1))
        told = await client.until("AUTHENTICATED")
        assert (told["user"], told.get("expiresAt")) == ("local", None)
