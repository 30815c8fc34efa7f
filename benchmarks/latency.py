"""Submit → `job:ack` above a bare NATS round trip, and last denoising step → `job:complete`.

    .venv/bin/python benchmarks/latency.py [--acks 1000] [--jobs 100]

One WebSocket client, one request after the other.  The ack is sent after the record is durable (compare-and-set,
fsync); while it is measured the queue is paused, so that the model computes nothing.  The baseline is a
request/reply between two plain NATS clients; rounds of both alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import httpx
import nats
from nats.aio.msg import Msg
from product import figure_ms, running_product
from websockets.asyncio.client import ClientConnection, connect

ROUNDS = 10
WARM_UP = 20


class BareRoundTrips:
    """Request/reply between two connections to the same nats-server."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> BareRoundTrips:
        self._server, self._client = await nats.connect(self._url), await nats.connect(self._url)

        async def echo(message: Msg) -> None:
            await message.respond(message.data)

        await self._server.subscribe("benchmark.echo", cb=echo)
        await self._server.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._server.close()

    async def seconds(self, count: int) -> list[float]:
        """Seconds of `count` round trips."""
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            await self._client.request("benchmark.echo", b"x" * 400, timeout=5)
            taken.append(time.perf_counter() - started)
        return taken


async def next_of(socket: ClientConnection, *types: str) -> dict[str, Any]:
    """The next message of these types; SystemExit for an error."""
    while True:
        message: dict[str, Any] = json.loads(await socket.recv())
        if message["type"] in types:
            return message
        if message["type"] == "error":
            raise SystemExit(f"refused: {message}")


async def acks(socket: ClientConnection, count: int, size: str) -> list[float]:
    """Seconds from submit to ack; each job is cancelled before the next one, outside of what is counted."""
    taken = []
    for seed in range(count):
        submit = {"type": "job:submit", "jobType": "generate", "prompt": "a red circle", "size": size}
        frame = json.dumps({**submit, "seed": seed})
        started = time.perf_counter()
        await socket.send(frame)
        ack = await next_of(socket, "job:ack")
        taken.append(time.perf_counter() - started)
        await socket.send(json.dumps({"type": "job:cancel", "jobId": ack["jobId"]}))
        await next_of(socket, "job:error")
    return taken


async def ends(socket: ClientConnection, count: int, size: str) -> list[float]:
    """Seconds from the last step's progress to complete, of the jobs whose last step was told at once.

    Progress is told 20 times a second, so most last steps are told together with what follows: the number of steps
    varies, for the two not to keep pace.
    """
    taken = []
    for seed in range(count):
        submit = {"type": "job:submit", "jobType": "generate", "prompt": "a red circle", "size": size}
        await socket.send(json.dumps({**submit, "seed": seed, "num_inference_steps": 6 + seed % 12}))
        last_step = 0.0
        while (message := await next_of(socket, "job:progress", "job:complete", "job:error"))[
            "type"
        ] == "job:progress":
            # Decoding begins with the last step's end, and takes a few milliseconds of what is counted here.
            told = message.get("phase") in ("denoising", "decoding") and message.get("steps")
            if not last_step and told and message["step"] == message["steps"]:
                last_step = time.perf_counter()
        if message["type"] == "job:error":
            raise SystemExit(f"the job failed: {message}")
        if last_step:
            taken.append(time.perf_counter() - last_step)
    return taken


async def pause(url: str, paused: bool) -> None:
    """Close or open the queue."""
    async with httpx.AsyncClient(trust_env=False) as http:
        (await http.patch(f"{url}/v1/queue", json={"queue": {"paused": paused}})).raise_for_status()


async def measure(url: str, nats_url: str, *, ack_count: int, job_count: int, size: str) -> None:
    """Print one JSON line per figure."""
    bare: list[float] = []
    acked: list[float] = []
    async with connect(url.replace("http", "ws") + "/v1/ws", max_size=None, proxy=None) as socket:
        await ends(socket, 3, size)
        await pause(url, True)
        async with BareRoundTrips(nats_url) as trips:
            await trips.seconds(WARM_UP)
            await acks(socket, WARM_UP, size)
            for _ in range(ROUNDS):
                bare += await trips.seconds(ack_count // ROUNDS)
                acked += await acks(socket, ack_count // ROUNDS, size)
        await pause(url, False)
        ended = await ends(socket, job_count, size)
    figure_ms("bare NATS round trip", bare, targets={})
    figure_ms("submit → job:ack above it", acked, above=bare, targets={"p50": 3.0, "p99": 15.0})
    figure_ms("last step → job:complete", ended, targets={})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--acks", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--size", default="64x64")
    options = parser.parse_args()
    with running_product() as product:
        asyncio.run(
            measure(
                product.url,
                product.nats_url(),
                ack_count=options.acks,
                job_count=options.jobs,
                size=options.size,
            )
        )


if __name__ == "__main__":
    main()
