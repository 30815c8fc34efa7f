"""Clients that come back: whether each has missed nothing, heard nothing twice, and how soon it knows all.

    .venv/bin/python benchmarks/reconnects.py random [--reconnects 10000] [--clients 100] [--seed 1]
    .venv/bin/python benchmarks/reconnects.py storm [--clients 1000] [--rounds 5] [--seed 1]
    .venv/bin/python benchmarks/reconnects.py failover [--clients 200] [--rounds 20] [--seed 1]

*random*: connections are cut, and taken up again after a random absence on either of two gateways.  *storm*: all
clients are cut at one moment and come back at once.  *failover*: the gateway that holds all sockets is killed with
-9 and the clients go to the other one.  Jobs go on meanwhile.  Every log is judged against the bucket's own history
by the oracle of `reverie chaos`, and the last state that each client knows of each job against the record.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
from cluster import figure, http_client, killed_and_back, running_cluster, submit
from listener import Listener

from reverie_launcher.chaos.archive import Archive
from reverie_launcher.chaos.cluster import Cluster
from reverie_launcher.chaos.evidence import Evidence, History
from reverie_launcher.chaos.logs import judge_logs

CAUGHT_UP_S = 30.0
#: Seconds connected, and away.
PRESENT_S, ABSENT_S = (0.0, 1.0), (0.0, 2.0)
JOBS_EVERY_S = 0.25
START_BATCH = 50


@contextlib.asynccontextmanager
async def jobs_going_on(urls: list[str]) -> AsyncIterator[None]:
    """Submit a short job now and then."""

    async def keep_submitting() -> None:
        async with http_client() as http:
            for number in itertools.count():
                with contextlib.suppress(httpx.HTTPError):
                    await submit(http, urls[number % len(urls)], number)
                await asyncio.sleep(JOBS_EVERY_S)

    task = asyncio.create_task(keep_submitting())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def verdict(cluster: Cluster, listeners: list[Listener]) -> dict[str, int]:
    """Violations in the clients' logs by promise, and clients whose last known states are not the records'."""
    history = await Archive(lambda: cluster.server.port).read_all()
    evidence = Evidence(history=history, client_logs=[listener.log for listener in listeners])
    found = Counter(violation.promise.name.lower() for violation in judge_logs(evidence))
    return {
        "gaps": found["log_whole"],
        "duplicates": found["log_once"],
        "out_of_order": found["log_order"],
        "untrue": found["log_true"],
        "clients_with_a_wrong_state": sum(not _knows(listener, history) for listener in listeners),
    }


def _knows(listener: Listener, history: History) -> bool:
    latest = {job: (revisions[-1].seq, revisions[-1].job.state) for job, revisions in history.items()}
    return all(latest[job] == known for job, known in listener.states.items())


async def connect_all(
    listeners: list[Listener], urls: list[str], rng: random.Random
) -> set[asyncio.Task[None]]:
    """Everybody connected and caught up, a few at a time; the tasks that keep them so."""
    tasks: set[asyncio.Task[None]] = set()
    for start in range(0, len(listeners), START_BATCH):
        batch = listeners[start : start + START_BATCH]
        tasks |= {asyncio.create_task(each.stay(urls, rng)) for each in batch}
        await all_caught_up(batch)
    return tasks


async def all_caught_up(listeners: list[Listener]) -> None:
    """Return when everybody knows all that happened before their present connection."""
    async with asyncio.timeout(CAUGHT_UP_S):
        for listener in listeners:
            await listener.caught_up.wait()


async def end(tasks: set[asyncio.Task[None]]) -> None:
    """Nobody comes back any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def settle(cluster: Cluster, listeners: list[Listener]) -> None:
    """Return when no job is left and the last events have gone out."""
    async with http_client() as http:
        url = cluster.direct_url(cluster.gateways[-1])
        while (await http.get(f"{url}/v1/queue")).json()["depth"]:  # noqa: ASYNC110  # other processes work
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    await all_caught_up(listeners)


async def come_and_go(listener: Listener, urls: list[str], rng: random.Random, times: int) -> list[float]:
    """Seconds from each attempt to connect until it was caught up."""
    took = []
    for _ in range(times):
        began = time.monotonic()
        talk = asyncio.create_task(listener.stay(urls, rng))
        async with asyncio.timeout(CAUGHT_UP_S):
            await listener.caught_up.wait()
        took.append(listener.caught_up_at - began)
        await asyncio.sleep(rng.uniform(*PRESENT_S))
        listener.cut()
        await end({talk})
        await asyncio.sleep(rng.uniform(*ABSENT_S))
    return took


async def at_random(reconnects: int, clients: int, seed: int) -> None:
    """10,000 reconnects with random absence."""
    async with running_cluster(seed=seed) as cluster:
        urls = [cluster.direct_url(name) for name in cluster.gateways]
        listeners = [Listener(f"client-{number}") for number in range(clients)]
        each = reconnects // clients + 1
        async with jobs_going_on(urls):
            took = await asyncio.gather(
                *(
                    come_and_go(listener, urls, random.Random(f"{seed} {number}"), each)
                    for number, listener in enumerate(listeners)
                )
            )
        tasks = await connect_all(listeners, urls, random.Random(seed))
        await settle(cluster, listeners)
        await end(tasks)
        found = await verdict(cluster, listeners)
    seconds = [value for values in took for value in values[1:]]
    figure("forced reconnect with random absence → caught up", seconds, targets={}, seed=seed, flaws=found)


async def in_a_storm(clients: int, rounds: int, seed: int) -> None:
    """Everybody at once."""
    rng = random.Random(seed)
    async with running_cluster(seed=seed) as cluster:
        urls = [cluster.direct_url(name) for name in cluster.gateways]
        listeners = [Listener(f"client-{number}") for number in range(clients)]
        tasks = await connect_all(listeners, urls, rng)
        took: list[float] = []
        async with jobs_going_on(urls):
            for _ in range(rounds):
                await asyncio.sleep(1.0)
                began = time.monotonic()
                for listener in listeners:
                    listener.cut()
                await all_caught_up(listeners)
                took += [listener.caught_up_at - began for listener in listeners]
        await settle(cluster, listeners)
        await end(tasks)
        found = await verdict(cluster, listeners)
    name = f"{clients} clients reconnect at once → caught up"
    figure(name, took, targets={"max": 5.0}, seed=seed, rounds=rounds, flaws=found)


async def after_a_kill(clients: int, rounds: int, seed: int) -> None:
    """The gateway under all sockets dies."""
    rng = random.Random(seed)
    async with running_cluster(seed=seed) as cluster:
        urls = [cluster.direct_url(name) for name in cluster.gateways]
        listeners = [Listener(f"client-{number}") for number in range(clients)]
        took: list[float] = []
        living = [urls[0]]
        tasks = await connect_all(listeners, living, rng)
        async with jobs_going_on(urls):
            for number in range(rounds):
                victim = number % len(urls)
                await asyncio.sleep(rng.uniform(0.5, 1.5))
                living[:] = [urls[1 - victim]]
                member = cluster.members[cluster.gateways[victim]]
                for listener in listeners:
                    listener.expect_loss()
                began = time.monotonic()
                returning = asyncio.create_task(killed_and_back(member, down_s=1.0))
                await asyncio.sleep(0)
                await all_caught_up(listeners)
                took += [listener.caught_up_at - began for listener in listeners]
                await returning
        await settle(cluster, listeners)
        await end(tasks)
        found = await verdict(cluster, listeners)
    name = f"gateway killed under {clients} sockets → each has the exact state on another"
    figure(name, took, targets={"p99": 2.0}, seed=seed, rounds=rounds, flaws=found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("random", "storm", "failover"))
    parser.add_argument("--reconnects", type=int, default=10_000)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    clients, rounds, seed = options.clients, options.rounds, options.seed
    match options.what:
        case "random":
            run = at_random(options.reconnects, clients or 100, seed)
        case "storm":
            run = in_a_storm(clients or 1000, rounds or 5, seed)
        case _:
            run = after_a_kill(clients or 200, rounds or 20, seed)
    asyncio.run(run)


if __name__ == "__main__":
    main()
