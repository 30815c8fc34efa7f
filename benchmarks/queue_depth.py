"""What one submit and one claim cost when 10 jobs wait, and when 20,000 do.

    .venv/bin/python benchmarks/queue_depth.py [--rounds 30] [--each 20] [--shallow 10] [--deep 20000]

Two real systems side by side, each its own nats-server and gateway, one with a shallow and one with a deep queue of
many owners, lanes and places; rounds alternate between them, and the medians of time and means of CPU count.
*Submit*: `job:submit` → `job:ack` through the gateway.  *Claim*: the choice among what waits, the compare-and-set,
and the own mirror that shows it, with a store and a mirror as a worker has them.  CPU is the gateway's for a
submit, this process's for a claim.  The deep queue is full but for one round of submits (`gateway.max_queued`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable

import psutil
from cancelling import Client, client
from cluster import running_cluster

from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.submission import new_job
from reverie_jobs.transitions import Claim, claim, requeue
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.jobs import GenerateParams, Job, JobType, Lane, ModeInfo, Worker, WorkerState
from reverie_runtime.bus.nats import connect_nats

MOST_COST = 1.3
OWNERS = 50
AT_ONCE = 64
WORKER = Worker(
    name="benchmark",
    incarnation="1",
    service="benchmark",
    state=WorkerState.READY,
    job_types=(JobType.GENERATE,),
    modes={"benchmark": ModeInfo(model="benchmark")},
)
KEY = "benchmark.1"


class System:
    """A gateway with a queue of a certain depth, and a worker's own store and mirror beside it."""

    def __init__(self, depth: int, one: Client, store: JobStore, mirror: JobMirror, gateway_pid: int) -> None:
        self.depth = depth
        self._one = one
        self._store = store
        self._mirror = mirror
        self._gateway = psutil.Process(gateway_pid)
        self.submits: list[float] = []
        self.submit_cpu: list[float] = []
        self.claims: list[float] = []
        self.claim_cpu: list[float] = []

    async def fill(self, count: int, rng: random.Random) -> None:
        """Bring the queue to its depth, for many owners."""
        now = time.time()
        jobs = iter([drafted(rng, now + rng.random()) for _ in range(count)])

        async def submit() -> None:
            for job in jobs:
                await self._store.submit(job)

        await asyncio.gather(*(submit() for _ in range(AT_ONCE)))
        await self._shown(lambda: len(self._mirror.queued) >= count)

    async def round_of_submits(self, each: int) -> None:
        """Submit through the gateway; what was submitted is cancelled again, uncounted."""
        cpu, ids = cpu_of(self._gateway), []
        for number in range(each):
            started = time.perf_counter()
            ids.append(await self._one.submit(number, priority="background"))
            self.submits.append(time.perf_counter() - started)
        self.submit_cpu.append((cpu_of(self._gateway) - cpu) / each)
        for job_id in ids:
            await self._one.cancel(job_id)
            await self._one.ends(job_id)

    async def round_of_claims(self, each: int) -> None:
        """Claim who is next; what was claimed goes back to the queue, uncounted."""
        held = []
        cpu = time.process_time()
        for _ in range(each):
            started = time.perf_counter()
            job = self._mirror.waiting.choose(WORKER, now=time.time())
            assert job is not None
            stored = await self._store.apply(job.id, lambda job: claim(job, worker=KEY, now=time.time()))
            await self._shown(
                lambda job=job, stored=stored: self._mirror.revision_of(job.id) >= stored.revision
            )
            self.claims.append(time.perf_counter() - started)
            held.append(Claim(job.id, KEY, stored.job.attempt))
        self.claim_cpu.append((time.process_time() - cpu) / each)
        for mine in held:
            await self._store.apply(
                mine.job_id,
                lambda job, mine=mine: requeue(job, mine, crashed=False, now=time.time()),  # type: ignore[misc]  # bound now
            )

    async def _shown(self, condition: Callable[[], bool]) -> None:
        changed = asyncio.Event()
        stop = self._mirror.listen(lambda _: changed.set())
        while not condition():
            changed.clear()
            await changed.wait()
        stop()


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def drafted(rng: random.Random, now: float) -> Job:
    """Some job of some owner."""
    submit = JobSubmit(params=GenerateParams(prompt="a red circle"), priority=rng.choice(list(Lane)))
    return new_job(submit, owner=f"owner-{rng.randrange(OWNERS)}", now=now, random_bits=rng.getrandbits)


@contextlib.asynccontextmanager
async def system(depth: int, seed: int, *, room: int) -> AsyncIterator[System]:
    """A filled system; its worker is this process alone, and the reaper leaves it in peace, since it answers."""
    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(running_cluster(seed=seed, gateways=1, light=0))
        bus = await connect_nats(f"nats://127.0.0.1:{cluster.server.port}", name="benchmark")
        stack.push_async_callback(bus.close)

        async def pong(message: object) -> None:
            await bus.publish(message.reply, b"")  # type: ignore[attr-defined]  # a bus message

        await bus.subscribe(f"worker.ping.{KEY}", pong)
        bucket = await bus.bucket(JOBS)
        mirror = JobMirror()
        await stack.enter_async_context(follow(mirror, bucket))
        one = await stack.enter_async_context(client(cluster.direct_url(cluster.gateways[0])))
        pid = cluster.members[cluster.gateways[0]].pid
        assert pid is not None
        store = JobStore(bucket, new_op=lambda: secrets.token_hex(8))
        filled = System(depth, one, store, mirror, pid)
        await filled.fill(depth - room, random.Random(seed))
        yield filled


def compare(name: str, shallow: System, deep: System, *, wall: str, cpu: str) -> None:
    """Print one JSON line: the cost in both, and what the deep one costs more."""
    rows: dict[str, float] = {}
    for kind, values in (("wall", wall), ("cpu", cpu)):
        medians = [statistics.median(getattr(each, values)) * 1e3 for each in (shallow, deep)]
        rows |= {
            f"{kind}_{each.depth}_ms": round(ms, 3) for each, ms in zip((shallow, deep), medians, strict=True)
        }
        rows[f"{kind}_ratio"] = round(medians[1] / medians[0], 2)
    met = rows["wall_ratio"] <= MOST_COST
    print(
        json.dumps(
            {"figure": name, "count": len(getattr(deep, wall)), **rows, "target": MOST_COST, "met": met}
        ),
        flush=True,
    )


async def measure(rounds: int, each: int, depths: tuple[int, int], seed: int) -> None:
    """Print a line for submits and one for claims."""
    async with system(depths[0], seed, room=0) as shallow, system(depths[1], seed + 1, room=each) as deep:
        for number in range(rounds + 1):
            for measured in (shallow, deep) if number % 2 else (deep, shallow):
                await measured.round_of_submits(each)
                await measured.round_of_claims(min(each, depths[0] // 2))
                if number == 0:  # to warm up
                    for values in (
                        measured.submits,
                        measured.submit_cpu,
                        measured.claims,
                        measured.claim_cpu,
                    ):
                        values.clear()
        compare("cost of one submit", shallow, deep, wall="submits", cpu="submit_cpu")
        compare("cost of one claim", shallow, deep, wall="claims", cpu="claim_cpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--shallow", type=int, default=10)
    parser.add_argument("--deep", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=31)
    options = parser.parse_args()
    asyncio.run(measure(options.rounds, options.each, (options.shallow, options.deep), options.seed))


if __name__ == "__main__":
    main()
