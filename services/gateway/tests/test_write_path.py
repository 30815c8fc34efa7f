"""The way from an event to many sockets, over a real server and real connections: bursts, laggards, broken ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest
from websockets.exceptions import ConnectionClosed

from reverie_gateway.wire import wire_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBMIT = {"jobType": "generate", "prompt": "x"}
#: What the system takes for a client that does not read is some 200 kB here, and then there is our own bound.
LARGE = "x" * 4000


@contextlib.asynccontextmanager
async def lazy_socket(gateway):
    """A client that reads nothing unless it is told to."""
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plug.connect(("127.0.0.1", gateway.port))
    async with gateway.socket(sock=plug, max_queue=1, close_timeout=1) as client:
        await client.until("system:status")
        yield client


@contextlib.contextmanager
def plain_socket(gateway):
    """A bare connection after its handshake; it can break in ways that a WebSocket library does not offer."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(
            f"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        connection.setblocking(False)
        yield connection


async def read_until(connection, text):
    """What came until `text`, or until the end if there is none."""
    seen = b""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(120):
        while text is None or text not in seen:
            data = await loop.sock_recv(connection, 65536)
            if not data:
                return seen
            seen += data
    return seen


async def sockets_open(gateway, count):
    """Return once the gateway counts that many sockets."""
    async with asyncio.timeout(120):
        while f"reverie_gateway_sockets {count}.0" not in (await gateway.http.get("/metrics")).text:
            await asyncio.sleep(0.02)


async def submitted(gateway, count):
    answers = await asyncio.gather(*(gateway.http.post("/v1/jobs", json=SUBMIT) for _ in range(count)))
    return [answer.json()["jobId"] for answer in answers]


async def cancelled(gateway, job_ids):
    await asyncio.gather(*(gateway.http.delete(f"/v1/jobs/{job_id}") for job_id in job_ids))


async def test_a_burst_arrives_whole_and_in_order_on_every_socket(gateway, worker):
    async with gateway.socket() as one, gateway.socket() as other:
        for client in (one, other):
            await client.send({"type": "hello"})
            await client.until("hello:ok")
            client.seen.clear()
        job_ids = await submitted(gateway, 40)
        await cancelled(gateway, job_ids)
        for client in (one, other):
            while sum(message["type"] == "job:error" for message in client.seen) < len(job_ids):
                await client.until("job:error")
        told = [
            [(m["jobId"], m["type"], m["seq"]) for m in client.seen if m["type"].startswith("job:")]
            for client in (one, other)
        ]
    assert told[0] == told[1]
    assert [seq for _, _, seq in told[0]] == sorted({seq for _, _, seq in told[0]})
    for job_id in job_ids:
        assert [kind for each, kind, _ in told[0] if each == job_id] == ["job:state", "job:error"]


async def test_a_client_that_does_not_read_is_closed_with_a_code_that_invites_it_back(gateway, worker):
    async with lazy_socket(gateway) as lazy, gateway.socket() as eager:
        for _ in range(10):
            held = await worker.claim((await submitted(gateway, 1))[0])
            await worker.fail(held, "inference_failed", "x" * 200_000)
            assert (await eager.until("job:error"))["jobId"] == held.job_id
        await eager.settle()
        with pytest.raises(ConnectionClosed) as closed:
            await lazy.until("nothing that is ever sent")
    assert closed.value.rcvd.code == 4008


async def test_a_client_that_lags_gets_the_latest_progress_and_every_transition(gateway, worker):
    async with lazy_socket(gateway) as lazy, gateway.socket() as eager:
        held = await worker.claim((await submitted(gateway, 1))[0])
        steps = 500
        for step in range(1, steps + 1):
            await worker.progress(held, step, steps, node=LARGE)
        await eager.until("job:progress", step=steps)
        last = (await lazy.until("job:progress", step=steps))["step"]
        await worker.complete(held)
        for client in (lazy, eager):
            await client.until("job:complete", jobId=held.job_id)
        seen = [message["step"] for message in lazy.seen if message["type"] == "job:progress"]
        assert seen == sorted(set(seen))
        assert len(seen) < last
        assert lazy.types(held.job_id)[-1] == "job:complete"


async def test_the_end_of_a_job_is_not_followed_by_its_progress_however_late_it_is_read(gateway, worker):
    async with lazy_socket(gateway) as lazy, gateway.socket() as eager:
        held = await worker.claim((await submitted(gateway, 1))[0])
        for step in range(1, 201):
            await worker.progress(held, step, 200, node=LARGE)
        await eager.until("job:progress", step=200)
        await worker.complete(held)
        await eager.until("job:complete", jobId=held.job_id)
        await lazy.until("job:complete", jobId=held.job_id)
        await lazy.settle()
        assert lazy.types(held.job_id)[-1] == "job:complete"
        assert lazy.types(held.job_id).count("job:complete") == 1


@pytest.mark.parametrize("how", ["half-closed", "cut", "closed"])
async def test_a_socket_that_breaks_is_forgotten_and_the_others_notice_nothing(gateway, worker, how):
    async with gateway.socket() as client:
        await sockets_open(gateway, 1)
        with plain_socket(gateway) as connection:
            await read_until(connection, b"system:status")
            held = await worker.claim((await submitted(gateway, 1))[0])
            await read_until(connection, b'"running"')
            match how:
                case "half-closed":
                    connection.shutdown(socket.SHUT_WR)
                    await read_until(connection, None)
                case "cut":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
                case "closed":
                    connection.sendall(b"\x88\x82\0\0\0\0" + (1000).to_bytes(2, "big"))
                    assert b"\x88\x02" + (1000).to_bytes(2, "big") in await read_until(connection, None)
            for step in range(1, 6):
                await worker.progress(held, step, 5)
            await client.until("job:progress", step=5)
            await sockets_open(gateway, 1)
        await worker.complete(held)
        await client.until("job:complete", jobId=held.job_id)


async def test_a_client_that_pings_without_reading_does_not_pile_up_pongs(gateway):
    with plain_socket(gateway) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await read_until(connection, b"system:status")
        ping = b"\x89\xfd\0\0\0\0" + b"x" * 125
        sent, loop = 0, asyncio.get_running_loop()
        async with asyncio.timeout(120):
            while (
                sent < 4 << 20
            ):  # it is all read: pongs that nobody takes are dropped, and nothing stands still
                await loop.sock_sendall(connection, ping * 512)
                sent += 512 * len(ping)
        text = b'{"type":"ping","id":"last"}'
        await loop.sock_sendall(connection, bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
        answers = await read_until(connection, b'"last"')
        assert answers.count(b"\x8a\x7d") < sent // len(ping)


async def test_what_was_said_before_the_end_is_read_before_it(own_stage):
    gateway = await own_stage.gateway()
    async with gateway.socket() as client:
        await client.until("system:status")
        for number in range(50):
            await client.send({"type": "ping", "id": number})
        await client.until("pong", id=0)
        leaving = asyncio.create_task(gateway.leave())
        with pytest.raises(ConnectionClosed) as closed:
            await client.until("nothing that is ever sent")
        await leaving
    assert closed.value.rcvd.code == 1001
    pongs = [message["id"] for message in client.seen if message["type"] == "pong"]
    assert pongs == list(range(len(pongs)))


async def test_under_a_server_without_the_extension_it_says_what_is_missing():
    for scope in ({}, {"extensions": None}, {"extensions": {"websocket.http.response": {}}}):
        with pytest.raises(RuntimeError, match=r"reverie_gateway\.wire\.Wire"):
            wire_of(scope)
