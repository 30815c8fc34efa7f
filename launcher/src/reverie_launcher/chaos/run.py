"""One run from beginning to end: start, disturb, settle, read everything back, judge."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import httpx
import msgspec
from PIL import Image

from reverie_launcher.chaos.archive import Archive
from reverie_launcher.chaos.client import Client, DeafClient
from reverie_launcher.chaos.cluster import Cluster, running
from reverie_launcher.chaos.evidence import Evidence, History, OutputRead, Unexpected
from reverie_launcher.chaos.injector import Injector
from reverie_launcher.chaos.observer import Observer
from reverie_launcher.chaos.oracle import judge
from reverie_launcher.chaos.plan import Fault, plan_faults
from reverie_launcher.chaos.report import Report, Setup, report_of
from reverie_launcher.chaos.workload import plan_jobs

READY_POLL_S: Final = 0.1
HTTP_TIMEOUT_S: Final = 5.0
READ_TRIES: Final = 40
#: How long a service may take to be ready after the last fault; torch alone takes long to import on a busy machine.
BACK_S: Final = 60.0
READ_PAUSE_S: Final = 0.2
#: Requests in flight while the outputs are read.
READERS: Final = 4


async def run_chaos(setup: Setup, folder: Path, *, model: str, tell: Callable[[str], None]) -> Report:
    """Run it in `folder`, which is to be empty.  `tell` gets a line at each stage."""
    rng = random.Random()  # ports only: what happens follows from the seed
    faults = plan_faults(
        seed=setup.seed,
        count=setup.faults,
        span_s=setup.span_s,
        workers=setup.workers + setup.light,
        gateways=setup.gateways,
        only=setup.only,
    )
    began = time.time()
    tell(
        f"starting nats-server, {setup.gateways} gateways, "
        f"{setup.workers} workers with a model and {setup.light} without"
    )
    async with running(
        folder,
        gateways=setup.gateways,
        workers=setup.workers,
        light=setup.light,
        model=model,
        rng=rng,
        retention_s=setup.retention_s,
    ) as cluster:
        observer, injector = Observer(lambda: cluster.server.port), Injector(cluster)
        archive = Archive(lambda: cluster.server.port)
        unexpected: list[Unexpected] = []
        clients = _clients(setup, cluster, unexpected)
        async with observer.run(), archive.run(), _readiness(cluster) as readiness, _deaf(cluster):
            tell(
                f"{setup.jobs} jobs of {setup.clients} clients and {len(faults)} faults in {setup.span_s:g} s"
            )
            settled = await _disturb(
                setup, injector=injector, faults=faults, clients=clients, observer=observer, tell=tell
            )
        # Last of all, so that nobody has been told anything that is not in it.
        tell("reading everything back" if settled else "nothing moves any more; reading everything back")
        not_back = await cluster.not_back(within_s=BACK_S)
        history = await archive.read_all()
        outputs = await read_outputs(cluster, history)
        ended = time.time()
        tell("stopping")
    evidence = Evidence(
        history=history,
        retention_s=setup.retention_s,
        acknowledged=[ack for client in clients for ack in client.acknowledged],
        cancelled=[cancel for client in clients for cancel in client.cancelled],
        polled=[polled for client in clients for polled in client.polled],
        unexpected=unexpected,
        outputs=outputs,
        not_back=not_back,
        holes=cluster.holes,
        said=cluster.said,
        client_logs=[client.log for client in clients],
        bus_log=observer.log,
    )
    (folder / "evidence.json").write_bytes(msgspec.json.encode(evidence))
    return report_of(
        setup,
        evidence,
        judge(evidence),
        done=injector.done,
        lives=[happened for member in cluster.members.values() for happened in member.life],
        readiness=readiness,
        cuts=sum(client.cuts for client in clients),
        repeats=sum(client.repeats for client in clients),
        settled=settled,
        seconds=ended - began,
    )


def _clients(setup: Setup, cluster: Cluster, unexpected: list[Unexpected]) -> list[Client]:
    plans = plan_jobs(
        seed=setup.seed,
        count=setup.jobs,
        span_s=setup.span_s,
        clients=setup.clients,
        prompt_chars=setup.prompt_chars,
    )
    started = asyncio.get_running_loop().time()
    return [
        Client(
            number,
            cluster.urls(),
            [plan for plan in plans if plan.client == number],
            rng=random.Random(f"client {setup.seed} {number}"),
            started=started,
            unexpected=unexpected,
            retention_s=setup.retention_s,
        )
        for number in range(setup.clients)
    ]


async def _disturb(
    setup: Setup,
    *,
    injector: Injector,
    faults: list[Fault],
    clients: list[Client],
    observer: Observer,
    tell: Callable[[str], None],
) -> bool:
    """Faults and clients together; whether all clients came to an end.

    They get as long as it takes, and are given up when no job has moved for `settle_s`.
    """
    working = asyncio.gather(*(client.run() for client in clients))
    try:
        await injector.run(faults)
        tell("no more faults; waiting until every job is over")
        moved = -1
        while not working.done() and observer.heard != moved:
            moved = observer.heard
            await asyncio.wait({working}, timeout=setup.settle_s)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@contextlib.asynccontextmanager
async def _deaf(cluster: Cluster) -> AsyncIterator[None]:
    """Meanwhile one client of each gateway never reads."""
    tasks = [asyncio.create_task(DeafClient(cluster.direct_url(name)).run()) for name in cluster.gateways]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _readiness(cluster: Cluster) -> AsyncIterator[list[tuple[float, bool]]]:
    """When, after each return of nats-server, every gateway said that it was ready again."""
    samples: list[tuple[float, bool]] = []

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, trust_env=False, verify=False) as http:
            while True:
                await asyncio.sleep(READY_POLL_S)
                returned = max((each.at for each in cluster.nats.life if each.what == "ready"), default=0.0)
                if samples and samples[-1][1] and samples[-1][0] > returned:
                    continue
                asked = [_ready(http, cluster.direct_url(name)) for name in cluster.gateways]
                samples.append((time.time(), all(await asyncio.gather(*asked))))

    task = asyncio.create_task(ask(), name="readiness")
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/ready")).is_success
    except httpx.HTTPError:
        return False


async def read_outputs(cluster: Cluster, history: History) -> dict[str, OutputRead | None]:
    """Every output that a record names, as a gateway serves it."""
    keys = {output.key for revisions in history.values() for output in revisions[-1].job.outputs}
    read: dict[str, OutputRead | None] = dict.fromkeys(keys)
    left = sorted(keys)

    async def read_some(http: httpx.AsyncClient, number: int) -> None:
        while left:
            key = left.pop()
            for turn in range(READ_TRIES):
                url = cluster.direct_url(cluster.gateways[(number + turn) % len(cluster.gateways)])
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.get(f"{url}/storage/{key}")
                    if answer.is_success:
                        read[key] = _describe(answer.content)
                        break
                await asyncio.sleep(READ_PAUSE_S)

    async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, trust_env=False, verify=False) as http:
        await asyncio.gather(*(read_some(http, number) for number in range(READERS)))
    return read


def _describe(content: bytes) -> OutputRead:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        text = str(picture.info.get("parameters", ""))
    return OutputRead(hashlib.sha256(content).hexdigest(), text)


def write_report(report: Report, path: Path) -> None:
    """The report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
