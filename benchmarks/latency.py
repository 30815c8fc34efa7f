"""Submit → ack and last denoising step → `job:complete`, p50 and p95, beside a bare NATS round trip.

    .venv/bin/python benchmarks/latency.py [--jobs 200]

One WebSocket client, one job after the other, at the native size.  The ack is sent after the record is durable
(compare-and-set, fsync).  The baseline is a request/reply between two plain NATS clients in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import nats
from nats.aio.msg import Msg
from product import percentile, running_product
from websockets.asyncio.client import connect


async def bare_round_trips(url: str, count: int) -> list[float]:
    """Seconds of `count` request/reply round trips between two connections."""
    server, client = await nats.connect(url), await nats.connect(url)

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    await server.subscribe("benchmark.echo", cb=echo)
    await server.flush()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await client.request("benchmark.echo", b"x" * 400, timeout=5)
        seconds.append(time.perf_counter() - started)
    await client.close()
    await server.close()
    return seconds


async def jobs(url: str, count: int, size: str) -> tuple[list[float], list[float]]:
    """Seconds from submit to ack, and from the last step's progress to complete."""
    acks, ends = [], []
    async with connect(url.replace("http", "ws") + "/v1/ws", max_size=None) as socket:
        for index in range(count):
            submit = {"type": "job:submit", "id": index, "jobType": "generate", "size": size}
            started = time.perf_counter()
            await socket.send(json.dumps({**submit, "prompt": "a red circle", "seed": index}))
            last_step = 0.0
            while True:
                message = json.loads(await socket.recv())
                now = time.perf_counter()
                if message["type"] == "job:ack":
                    acks.append(now - started)
                elif message["type"] == "job:progress":
                    if not last_step and message.get("steps") and message["step"] == message["steps"]:
                        last_step = now
                elif message["type"] == "job:complete":
                    if last_step:
                        ends.append(now - last_step)
                    break
                elif message["type"] in ("error", "job:error"):
                    raise SystemExit(f"the job failed: {message}")
    return acks, ends


def main() -> None:
    """Print one JSON line per measure, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--size", default="64x64")
    options = parser.parse_args()
    with running_product() as product:
        asyncio.run(jobs(product.url, 10, options.size))
        bare = asyncio.run(bare_round_trips(product.nats_url(), options.jobs))
        acks, ends = asyncio.run(jobs(product.url, options.jobs, options.size))
    for name, seconds in (
        ("bare NATS round trip", bare),
        ("submit → ack", acks),
        ("last step → complete", ends),
    ):
        p50, p95 = percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.95) * 1e3
        row = {"measure": name, "count": len(seconds), "p50_ms": round(p50, 2), "p95_ms": round(p95, 2)}
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
