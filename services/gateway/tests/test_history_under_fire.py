"""A gateway that starts while everything breaks: what it claims to hold, it holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from reverie_gateway.event_log import EventLog
from reverie_gateway.hub import Hub
from reverie_gateway.identity import Identity
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.writer import Turn
from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.store import JOBS
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType
from reverie_runtime.bus.nats import NatsBus, connect_nats
from reverie_runtime.bus.nats_watch import HEARTBEAT_S
from reverie_runtime.bus.port import Bucket, Entry, SnapshotBegin, WatchEvent
from reverie_runtime.clock import SystemClock
from reverie_testing.nats_server import NatsServer

#: Two revisions of each are more than nats-server sends before it wants to hear that it was read: 2 MiB.
JOB_COUNT = 150
LATE = 10
QUEUED = Job(
    id="",
    owner="me",
    type=JobType.GENERATE,
    state=JobState.QUEUED,
    params=GenerateParams(prompt="x" * 9_000),
    created_at=1.0,
    enqueued_at=1.0,
    updated_at=1.0,
)


class Jobs:
    """Writes records as gateways and workers would; `revisions` are all, in order."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._latest: dict[str, tuple[Job, int]] = {}
        self.revisions: list[int] = []

    async def submit(self, job_id: str) -> None:
        await self._write(replace(QUEUED, id=job_id), 0)

    async def move(self, job_id: str, state: JobState) -> None:
        job, revision = self._latest[job_id]
        now = SystemClock().time()
        await self._write(replace(job, state=state, updated_at=now, job_seq=job.job_seq + 1), revision)

    async def _write(self, job: Job, revision: int) -> None:
        written = await self._bucket.update(job.id, msgspec.json.encode(job), revision)
        self._latest[job.id] = job, written
        self.revisions.append(written)


class DisturbedBucket:
    """A bucket whose watch is interrupted after a few entries, and whose reader then keeps the server waiting."""

    def __init__(self, bucket: Bucket, interrupt: Callable[[], Awaitable[None]]) -> None:
        self._bucket = bucket
        self._interrupt = interrupt
        self.name = bucket.name
        self.begun = 0

    @asynccontextmanager
    async def watch(self, *, history: bool = False) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        async with self._bucket.watch(history=history) as events:
            yield self._disturbed(events)

    async def _disturbed(self, events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
        async for event in events:
            yield event
            if isinstance(event, SnapshotBegin):
                self.begun += 1
                if self.begun == 2:
                    await asyncio.sleep(1.5 * HEARTBEAT_S)
            if isinstance(event, Entry) and self.begun == 1 and event.revision == LATE:
                await self._interrupt()


@pytest.fixture
async def connect(nats_server: NatsServer) -> AsyncIterator[Callable[[], Awaitable[NatsBus]]]:
    async with AsyncExitStack() as stack:

        async def connected() -> NatsBus:
            bus = await connect_nats(nats_server.url, name="test")
            assert isinstance(bus, NatsBus)
            stack.push_async_callback(bus.close)
            return bus

        yield connected


async def test_a_gateway_whose_first_history_was_interrupted_and_then_stalled_tells_a_client_all_that_it_missed(
    connect: Callable[[], Awaitable[NatsBus]],
) -> None:
    bucket = await (await connect()).bucket(JOBS)
    jobs = Jobs(bucket)
    names = [f"job{number}" for number in range(JOB_COUNT)]
    for name in names:
        await jobs.submit(name)
    for name in names:
        await jobs.move(name, JobState.RUNNING)
    cursor = jobs.revisions[-1] + 1  # the mark of the purge
    bus = await connect()

    async def interrupt() -> None:
        """The link breaks; meanwhile a job that was told already is forgotten, and others end."""
        bus.link.drop()
        await bucket.purge(names[0])
        for name in names[1 : LATE + 1]:
            await jobs.move(name, JobState.COMPLETED)

    mirror, turn = JobMirror(), Turn(GatewayMetrics(CollectorRegistry()))
    hub = Hub(mirror, EventLog(retention_s=3600), turn, on_watch=lambda _: None, clock=SystemClock())
    disturbed = DisturbedBucket(await bus.bucket(JOBS), interrupt)
    async with follow(mirror, disturbed, history=True):  # type: ignore[arg-type]  # only what a mirror uses
        ended = asyncio.Event()
        mirror.listen(lambda change: ended.set() if change.revision == jobs.revisions[-1] else None)
        session = Session(Identity("me"), Outbox())
        async with asyncio.timeout(30):
            while mirror.get(names[LATE]).state is not JobState.COMPLETED:  # type: ignore[union-attr]  # it is there
                await ended.wait()
        missed = await hub.resume(session, cursor, mirror.epoch)
    assert disturbed.begun == 2
    assert missed is not None
    assert [event.seq for event in missed] == jobs.revisions[-LATE:]
    assert (hub.holes.seen, mirror.gaps) == (0, 0)
