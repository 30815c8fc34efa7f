"""nats-server is killed with -9 and comes back: first durable write, and all services live with mirrors right.

    .venv/bin/python benchmarks/server_restart.py [--kills 30] [--seed 1]
    .venv/bin/python benchmarks/server_restart.py --away 60

Counted from the moment its port takes connections again.  *First durable write*: the first submit that is
acknowledged.  *All live*: every gateway answers `/ready` and shows that job, and every worker has answered a ping
over NATS.  With `--away` it stays down so long: nobody may crash, submits must be 503 with Retry-After, and the
jobs that ran when it went must be finished and committed by the attempts that were under way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import time

import httpx
from cluster import LONG, body, figure, http_client, running_cluster, submit
from recovery import becomes

from reverie_launcher.chaos.cluster import Cluster
from reverie_launcher.chaos.nats_wire import NatsWire, WireLost
from reverie_launcher.chaos.observer import Observer
from reverie_protocol.jobs import JobState

RETRY_S = 0.005
GIVE_UP_S = 30.0
#: A gateway may take so long to say that NATS is away.
REFUSAL_S = 3.0
BETWEEN_S = 2.6


async def opened(port: int) -> float:
    """When the port took a connection."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            at = time.monotonic()
            writer.close()
            return at
        await asyncio.sleep(RETRY_S)


async def first_write(urls: list[str], numbers: itertools.count[int]) -> tuple[float, str]:
    """When a submit was acknowledged, and its job; asked of all gateways again and again."""

    async def insist(http: httpx.AsyncClient, url: str) -> tuple[float, str]:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                job_id = await submit(http, url, next(numbers))
                return time.monotonic(), job_id
            await asyncio.sleep(RETRY_S)

    async with http_client() as http:
        asking = [asyncio.create_task(insist(http, url)) for url in urls]
        done, rest = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        return min(task.result() for task in done)


async def shows(url: str, job_id: str) -> None:
    """Return when this gateway is ready and has the job in its mirror."""
    async with http_client() as http:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                ready = (await http.get(f"{url}/ready")).is_success
                if ready and (await http.get(f"{url}/v1/jobs/{job_id}")).is_success:
                    return
            await asyncio.sleep(RETRY_S)


async def worker_keys(port: int) -> list[str]:
    """The keys of all workers with a record."""
    wire = await NatsWire.open(port)
    try:
        answer = await wire.request("$JS.API.STREAM.INFO.KV_workers", b'{"subjects_filter":">"}')
    finally:
        await wire.close()
    return [subject.removeprefix("$KV.workers.") for subject in json.loads(answer)["state"]["subjects"]]


async def hears(port: int, worker: str) -> None:
    """Return when this worker has answered a ping."""
    while True:
        with contextlib.suppress(WireLost, TimeoutError):
            wire = await NatsWire.open(port)
            try:
                async with asyncio.timeout(1.0):
                    while not await wire.answered(f"worker.ping.{worker}"):  # noqa: ASYNC110  # another process
                        await asyncio.sleep(RETRY_S)
                    return
            finally:
                await wire.close()
        await asyncio.sleep(RETRY_S)


async def restart(cluster: Cluster, rng: random.Random, numbers: itertools.count[int]) -> tuple[float, float]:
    """One kill: seconds from the open port to the first write, and until all live."""
    workers = await worker_keys(cluster.server.port)
    cluster.nats.kill(down_s=rng.uniform(0.1, 2.0))
    while cluster.nats.running:  # noqa: ASYNC110  # its process ends
        await asyncio.sleep(RETRY_S)
    urls = [cluster.direct_url(name) for name in cluster.gateways]
    back, (written, job_id) = await asyncio.gather(opened(cluster.server.port), first_write(urls, numbers))
    async with asyncio.timeout(GIVE_UP_S):
        await asyncio.gather(
            *(shows(url, job_id) for url in urls), *(hears(cluster.server.port, each) for each in workers)
        )
    live = time.monotonic()
    await asyncio.sleep(BETWEEN_S)
    return max(0.0, written - back), live - back


async def kill_often(kills: int, seed: int) -> None:
    """One line per figure."""
    rng, numbers = random.Random(seed), itertools.count()
    async with running_cluster(seed=seed) as cluster:
        await asyncio.sleep(BETWEEN_S)
        rows = [await restart(cluster, rng, numbers) for _ in range(kills)]
        unbroken = uninterrupted(cluster)
    figure(
        "nats-server's port open → first durable write",
        [write for write, _ in rows],
        targets={"p99": 0.2},
        seed=seed,
        flaws={"services_died": int(not unbroken)},
    )
    figure(
        "nats-server's port open → all services live, mirrors right",
        [live for _, live in rows],
        targets={"p99": 1.0},
        seed=seed,
    )


def uninterrupted(cluster: Cluster) -> bool:
    """Whether no service has ended since it was started."""
    services = [member for member in cluster.members.values() if member is not cluster.nats]
    return all([each.what for each in member.life].count("started") == 1 for member in services)


async def stay_away(seconds: float, seed: int) -> None:
    """One line: what happened while the server was away, and after."""
    async with running_cluster(seed=seed) as cluster:
        observer = Observer(lambda: cluster.server.port)
        async with observer.run(), http_client() as http:
            await asyncio.sleep(BETWEEN_S)
            urls = [cluster.direct_url(name) for name in cluster.gateways]
            jobs = [await submit(http, urls[0], number, steps=LONG) for number in range(len(cluster.workers))]
            ran = [await becomes(observer, job_id, JobState.RUNNING) for job_id in jobs]
            cluster.nats.kill(down_s=seconds)
            ends = time.monotonic() + seconds - REFUSAL_S
            answers, waited = [], []
            for number in itertools.count(1000):
                if time.monotonic() > ends:
                    break
                asked = time.monotonic()
                answer = await http.post(f"{urls[number % len(urls)]}/v1/jobs", json=body(number))
                waited.append(time.monotonic() - asked)
                answers.append((answer.status_code, "retry-after" in answer.headers))
                await asyncio.sleep(0.25)
            await cluster.nats.wait_ready()
            done = [await becomes(observer, job_id, JobState.COMPLETED) for job_id in jobs]
            figure(
                "submit while nats-server is away → refusal",
                waited,
                targets={"max": REFUSAL_S},
                seed=seed,
                away_s=seconds,
                flaws={
                    "answers_other_than_503_with_retry_after": sum(each != (503, True) for each in answers),
                    "services_died": int(not uninterrupted(cluster)),
                    "running_jobs_not_committed_by_their_attempt": sum(
                        (after.attempt, after.worker) != (before.attempt, before.worker)
                        for before, after in zip(ran, done, strict=True)
                    ),
                },
                jobs_that_ran=len(jobs),
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--away", type=float, help="stay away this many seconds, once, instead")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(
        stay_away(options.away, options.seed)
        if options.away is not None
        else kill_often(options.kills, options.seed)
    )


if __name__ == "__main__":
    main()
