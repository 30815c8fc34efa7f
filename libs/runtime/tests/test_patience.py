"""Who does not send his request in time is cut off, on every port that a service has."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from reverie_runtime.health import Health, health_app
from reverie_runtime.http_server import PATIENCE, serve_http
from reverie_runtime.metrics import Metrics
from reverie_runtime.patience import Deadline, Patience

HASTY = Patience(silence_s=0.5, bytes_per_s=1000)
GENEROUS_S = 30.0


def test_speed_is_not_saved_up_for_a_later_silence():
    deadline = Deadline(Patience(silence_s=8, bytes_per_s=256), now=100)
    assert deadline.at == 108
    deadline.arrived(10_000_000, now=101)
    assert deadline.at == 109
    deadline.arrived(1, now=105)
    assert deadline.at == pytest.approx(109, abs=0.01)
    deadline.restart(now=200)
    assert deadline.at == 208
    for second in range(200, 300):
        deadline.arrived(300, now=second)
    assert deadline.at == pytest.approx(307)


async def cut(port: int, begin: bytes, drip: bytes) -> bytes:
    """What a server says before it hangs up on a client that begins and then drips."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)

    async def dripping() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(drip)

    feeding = asyncio.create_task(dripping())
    said = bytearray()
    try:
        async with asyncio.timeout(GENEROUS_S):
            while part := await reader.read(65536):
                said += part
    except ConnectionError:
        pass  # it hung up while we were sending
    finally:
        feeding.cancel()
        writer.close()
    return bytes(said)


async def test_a_health_port_cuts_off_who_drips_and_serves_the_others_meanwhile() -> None:
    assert PATIENCE.silence_s < 10
    app = health_app(Health(), Metrics())
    serving = serve_http(app, host="127.0.0.1", port=0, setting="health.port", patience=HASTY)
    async with serving as (_, port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        body = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        heads = [cut(port, b"GET /health HTTP/1.1\r\nX-Slow: ", b"a") for _ in range(20)]
        bodies = [cut(port, body, b"a") for _ in range(20)]
        cutting = asyncio.gather(*heads, *bodies)
        while not cutting.done():
            assert (await client.get("/health")).status_code == 200
        said = cutting.result()
        for answer in said[:20]:
            head, _, told = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
            assert json.loads(told) == {"detail": "the request did not come in time, or too slowly"}
        # It was answered before it was whole; the rest is not waited for.
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in said[20:])


async def test_a_health_port_speaks_no_websocket() -> None:
    app = health_app(Health(), Metrics())
    async with serve_http(app, host="127.0.0.1", port=0, setting="health.port") as (_, port):
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version": "13",
        }
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/health", headers=handshake)
        assert answer.status_code == 200
