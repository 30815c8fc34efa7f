"""`job:cancel` → `job:cancel:ok`, and whether a queued job ever starts after its cancel was acknowledged.

    .venv/bin/python benchmarks/cancelling.py [--cancels 500] [--races 2000] [--seed 21]

Latency: one client, one gateway, one worker; a waiting job, then a running one.  Race: several clients cancel jobs
through two gateways at a random moment while three workers claim whatever they see.  What counts is the
bucket's own history: after the revision that an acknowledged cancel made, no claim may follow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from cluster import LONG, body, running_cluster
from product import figure_ms
from websockets.asyncio.client import ClientConnection, connect

from reverie_jobs.store import JOBS, JobStore
from reverie_protocol.jobs import JobState
from reverie_runtime.bus.nats import connect_nats

CLIENTS = 8
WAIT_S = 60.0
#: A client cancels its job this long after the ack at most, in seconds; a light worker claims within that time.
MOST_PATIENCE_S = 0.03


class Client:
    """One WebSocket; remembers which of its jobs run and which are over."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.running: set[str] = set()
        self.over: set[str] = set()

    async def until(self, kind: str, *, job_id: str | None = None) -> dict[str, Any]:
        """The next message of that type (about that job); SystemExit for a refusal."""
        while True:
            message = await self._next()
            if message["type"] == kind and job_id in (None, message["jobId"]):
                return message

    async def runs(self, job_id: str) -> None:
        """Return once a job runs."""
        while job_id not in self.running:
            await self._next()

    async def ends(self, job_id: str) -> None:
        """Return once a job is over."""
        while job_id not in self.over:
            await self._next()

    async def submit(self, number: int, **fields: Any) -> str:
        """The acknowledged job's id."""
        await self._socket.send(json.dumps({"type": "job:submit", **body(number), **fields}))
        return str((await self.until("job:ack"))["jobId"])

    async def cancel(self, job_id: str) -> tuple[float, str]:
        """Seconds until it was acknowledged, and the state that was acknowledged."""
        frame = json.dumps({"type": "job:cancel", "jobId": job_id})
        started = time.perf_counter()
        await self._socket.send(frame)
        answer = await self.until("job:cancel:ok", job_id=job_id)
        return time.perf_counter() - started, answer["state"]

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            message: dict[str, Any] = json.loads(await self._socket.recv())
        match message:
            case {"type": "error"}:
                raise SystemExit(f"refused: {message}")
            case {"type": "job:state", "state": "running", "jobId": job_id}:
                self.running.add(job_id)
            case {"type": "job:complete" | "job:error", "jobId": job_id}:
                self.over.add(job_id)
        return message


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """A client of a gateway."""
    async with connect(url.replace("http", "ws") + "/v1/ws", max_size=None, proxy=None) as socket:
        yield Client(socket)


async def measure_latency(count: int, seed: int) -> None:
    """One line for waiting jobs, one for running ones."""
    async with (
        running_cluster(seed=seed, gateways=1, light=1) as cluster,
        client(cluster.direct_url(cluster.gateways[0])) as one,
    ):
        waiting, running = [], []
        for number in range(count):
            job_id = await one.submit(number, num_inference_steps=LONG)
            await one.runs(job_id)
            other = await one.submit(number, priority="batch")
            for cancelled, taken in ((other, waiting), (job_id, running)):
                seconds, state = await one.cancel(cancelled)
                if state in (JobState.CANCELLED, JobState.RUNNING):  # not over before
                    taken.append(seconds)
            await one.ends(job_id)
    for kind, taken in (("waiting", waiting), ("running", running)):
        figure_ms(f"cancel of a {kind} job → acknowledged", taken, targets={"p99": 25.0}, seed=seed)


async def race(url: str, numbers: range, rng: random.Random) -> dict[str, str]:
    """Submit and cancel one job after the other; the acknowledged state of each."""
    acknowledged = {}
    async with client(url) as one:
        for number in numbers:
            job_id = await one.submit(number)
            await asyncio.sleep(rng.uniform(0.0, MOST_PATIENCE_S))
            acknowledged[job_id] = (await one.cancel(job_id))[1]
    return acknowledged


async def started_after_cancel(store: JobStore, job_id: str, acknowledged: str) -> bool:
    """Whether the history has a claim behind the cancel that was acknowledged."""
    wished = False
    history = await store.history(job_id)
    if not history:
        raise SystemExit(f"job {job_id} was acknowledged as {acknowledged} and has no history")
    for past in history:
        if wished and past.job.state is JobState.RUNNING and not past.job.cancel:
            return True
        wished = wished or past.job.cancel
    return acknowledged == JobState.CANCELLED and not wished


async def measure_races(count: int, seed: int) -> None:
    """One line: cancels that came before, during and after the claim, and starts behind an acknowledged one."""
    rng = random.Random(seed)
    async with running_cluster(seed=seed, gateways=2, light=3) as cluster:
        urls = [cluster.direct_url(name) for name in cluster.gateways]
        share = count // CLIENTS
        clients = (
            race(
                urls[number % len(urls)],
                range(number * share, (number + 1) * share),
                random.Random(rng.random()),
            )
            for number in range(CLIENTS)
        )
        acknowledged: dict[str, str] = {}
        for states in await asyncio.gather(*clients):
            acknowledged |= states
        bus = await connect_nats(f"nats://127.0.0.1:{cluster.server.port}", name="benchmark")
        store = JobStore(await bus.bucket(JOBS), new_op=lambda: "none")
        wrong = [
            job_id
            for job_id, state in acknowledged.items()
            if await started_after_cancel(store, job_id, state)
        ]
        await bus.close()
    states = list(acknowledged.values())
    row = {
        "figure": "a queued job that started after its cancel was acknowledged",
        "count": len(states),
        **{f"acknowledged_{state}": states.count(state) for state in sorted(set(states))},
        "started_after": len(wrong),
        "met": not wrong,
        "seed": seed,
    }
    print(json.dumps(row), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=500)
    parser.add_argument("--races", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=21)
    options = parser.parse_args()
    asyncio.run(measure_latency(options.cancels, options.seed))
    asyncio.run(measure_races(options.races, options.seed))


if __name__ == "__main__":
    main()
