"""A worker is killed with -9 while it runs a job: how long until that job runs again on another one.

    .venv/bin/python benchmarks/recovery.py [--kills 100] [--seed 1]

Counted from the signal to the revision `running` of another worker, by the timestamps that nats-server gave them;
the others are idle, so a claim follows at once.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from typing import NamedTuple

from cluster import LONG, figure, http_client, killed_and_back, running_cluster, submit

from reverie_launcher.chaos.archive import Archive
from reverie_launcher.chaos.cluster import Cluster
from reverie_launcher.chaos.evidence import Revision
from reverie_launcher.chaos.observer import Observer
from reverie_protocol.jobs import Job, JobState

WAIT_S = 60.0


class Killed(NamedTuple):
    """A worker that was killed at a moment (epoch seconds) while it ran a job."""

    job_id: str
    worker: str
    at: float


async def becomes(observer: Observer, job_id: str, state: JobState) -> Job:
    """The job once it is in this state."""
    async with asyncio.timeout(WAIT_S):
        while True:
            observer.changed.clear()
            job = observer.jobs.get(job_id)
            if job is not None and job.state is state:
                return job
            await observer.changed.wait()


async def kill_one(cluster: Cluster, observer: Observer, rng: random.Random, url: str, number: int) -> Killed:
    """Kill the worker of a new job; return when the job is done and the worker is back."""
    async with http_client() as http:
        job_id = await submit(http, url, number, steps=LONG)
    worker = (await becomes(observer, job_id, JobState.RUNNING)).worker or ""
    await asyncio.sleep(rng.uniform(0.0, 0.25))
    at = time.time()
    await killed_and_back(cluster.members[worker.rpartition(".")[0]], down_s=1.0)
    await becomes(observer, job_id, JobState.COMPLETED)
    return Killed(job_id, worker, at)


def recovery_of(killed: Killed, revisions: list[Revision]) -> tuple[float, float] | None:
    """Seconds until the job was queued again and ran elsewhere; None if it was over before its worker died."""
    later = [revision for revision in revisions if revision.at > killed.at]
    queued = next((each.at for each in later if each.job.state is JobState.QUEUED), None)
    running = next(
        (
            each.at
            for each in later
            if each.job.state is JobState.RUNNING and each.job.worker != killed.worker
        ),
        None,
    )
    return None if queued is None or running is None else (queued - killed.at, running - killed.at)


async def measure(kills: int, seed: int) -> None:
    """One line per figure."""
    rng = random.Random(seed)
    async with running_cluster(seed=seed) as cluster:
        observer = Observer(lambda: cluster.server.port)
        async with observer.run():
            await asyncio.sleep(2.5)  # gateways judge nobody before they have listened for a lease
            url = cluster.direct_url(cluster.gateways[0])
            killed = [await kill_one(cluster, observer, rng, url, number) for number in range(kills)]
        history = await Archive(lambda: cluster.server.port).read_all()
    rows = [row for each in killed if (row := recovery_of(each, history[each.job_id])) is not None]
    figure("worker killed → its job is queued again", [queued for queued, _ in rows], targets={}, seed=seed)
    figure(
        "worker killed → its job runs again elsewhere",
        [running for _, running in rows],
        targets={"p50": 0.5, "p99": 2.5},
        seed=seed,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(measure(options.kills, options.seed))


if __name__ == "__main__":
    main()
