"""A dreams service really served over a real nats-server, and a worker that draws pictures without a model."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from PIL import Image, ImageDraw

from reverie_dreams.service import serve
from reverie_dreams.settings import DreamsSettings, Settings, StorageSettings
from reverie_jobs.mirror import WORKERS, JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import Claim, Refused, Superseded, cancel_finished, claim, complete
from reverie_protocol.dream_control import DreamAnswer, DreamRequest
from reverie_protocol.dreams import DreamCandidateEvent, DreamStatusEvent
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobMeta,
    JobState,
    JobType,
    ModeInfo,
    Output,
    Worker,
    WorkerState,
)
from reverie_protocol.preview import PreviewHeader, encode_preview
from reverie_protocol.subjects import DREAM_CTL, DREAM_STATUS, dream_candidate, job_preview
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bus, BusError
from reverie_runtime.clock import SystemClock
from reverie_storage.filesystem import FilesystemStorage
from reverie_storage.port import url_of
from reverie_testing.nats_server import NatsServer

EVENT_TIMEOUT_S = 60.0
CLOCK = SystemClock()
_serial = itertools.count()


def drawn(params: GenerateParams) -> bytes:
    """A picture that follows from the parameters alone: a disc, its colour and place by the noise, as PNG."""
    moved = "/".join(f"{move.seed}:{move.weight}" for move in params.variations)
    rng = random.Random(f"{params.seed}/{moved}/{params.prompt}")
    picture = Image.new("RGB", (64, 64), tuple(rng.randrange(256) for _ in range(3)))
    x, y, r = rng.randrange(8, 56), rng.randrange(8, 56), rng.randrange(4, 30)
    ImageDraw.Draw(picture).ellipse(
        (x - r, y - r, x + r, y + r), fill=tuple(rng.randrange(256) for _ in range(3))
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


class BenchWorker:
    """Claims jobs by itself and draws them; `gate` holds it, `preview` makes it show a half-way estimate."""

    def __init__(self, bus: Bus, storage: FilesystemStorage) -> None:
        self.bus = bus
        self.storage = storage
        self.mirror = JobMirror()
        self.gate = asyncio.Event()
        self.gate.set()
        self.preview = False
        self.made: list[Job] = []
        self.record = Worker(
            name=f"bench{next(_serial)}",
            incarnation="1",
            service="inference",
            state=WorkerState.READY,
            job_types=(JobType.GENERATE,),
            modes={
                "tiny": ModeInfo(
                    model="tiny", loaded=True, native_size="64x64", default_size="256x256", default_steps=10
                )
            },
            mode="tiny",
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BenchWorker]:
        bucket = await self.bus.bucket(JOBS)
        self.store = JobStore(bucket, new_op=lambda: f"bench-{next(_serial)}")
        workers = await self.bus.bucket(WORKERS)
        await workers.put(f"{self.record.name}.1", msgspec.json.encode(self.record))
        async with follow(self.mirror, bucket):
            working = asyncio.create_task(self._work())
            try:
                yield self
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    async def _work(self) -> None:
        news = asyncio.Event()
        self.mirror.listen(lambda _: news.set())
        while True:
            await self.gate.wait()
            job = self.mirror.waiting.choose(self.record, now=CLOCK.time())
            if job is None:
                news.clear()
                await news.wait()
                continue
            try:
                await self._do(job)
            except (Refused, Superseded, BusError):
                await asyncio.sleep(0)

    async def _do(self, job: Job) -> None:
        stored = await self.store.apply(job.id, lambda j: claim(j, worker="bench.1", now=CLOCK.time()))
        held = Claim(job.id, "bench.1", stored.job.attempt)
        picture = drawn(job.params)
        if self.preview:
            header = PreviewHeader(job.id, held.attempt, 3, 6, 64, 64)
            await self.bus.publish(job_preview(job.id), encode_preview(header, picture))
            await asyncio.sleep(0.05)
        key = await self.storage.put(picture, content_type="image/png")
        outputs = (Output(url=url_of(key), key=key, width=64, height=64),)
        meta = JobMeta(seed=job.params.seed or 0, backend="bench")

        def end(now: Job) -> Job:
            if now.cancel:
                return cancel_finished(now, held, outputs=outputs, meta=None, now=CLOCK.time())
            return complete(now, held, outputs=outputs, meta=meta, now=CLOCK.time())

        ended = await self.store.apply(job.id, end)
        if ended.job.state is JobState.COMPLETED:
            self.made.append(job)


class Stage:
    """One nats-server with dreams services and a worker on it."""

    def __init__(self, server: NatsServer, folder: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self.folder = folder
        self.storage = FilesystemStorage(folder)
        self.finds: list[DreamCandidateEvent] = []
        self.states: list[DreamStatusEvent] = []
        self.news = asyncio.Event()
        self._stack = stack

    async def open(self) -> None:
        self.bus = await self.connect("test")
        await self.bus.subscribe(dream_candidate("*"), self._found)
        await self.bus.subscribe(DREAM_STATUS, self._state)
        worker = BenchWorker(await self.connect("bench"), self.storage)
        self.worker = await self._stack.enter_async_context(worker.running())

    async def connect(self, name: str) -> Bus:
        bus = await connect_nats(self.server.url, name=name)
        self._stack.push_async_callback(bus.close)
        return bus

    @asynccontextmanager
    async def dreams(self, **settings: Any) -> AsyncIterator[Any]:
        """A dreams service; `name` tells several apart."""
        chosen = {"name": "dreamer", "scorers": ("aesthetic=1", "technical=0.2"), "preload": False}
        served = Settings(
            dreams=DreamsSettings(**(chosen | settings)), storage=StorageSettings(path=str(self.folder))
        )
        bus = await connect_nats(self.server.url, name="dreams")
        try:
            async with serve(served, bus=bus, clock=CLOCK) as hosting:
                yield hosting
        finally:
            await bus.close()

    async def ask(self, request: DreamRequest) -> DreamAnswer:
        reply = await self.bus.request(DREAM_CTL, msgspec.json.encode(request), timeout=EVENT_TIMEOUT_S)
        return msgspec.json.decode(reply.data, type=DreamAnswer)

    async def until(self, condition: Callable[[], Any]) -> Any:
        """The first true value, asked after each state and find that is told."""
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            while not (value := condition()):
                self.news.clear()
                await self.news.wait()
        return value

    def _found(self, message: Any) -> None:
        self.finds.append(msgspec.json.decode(message.data, type=DreamCandidateEvent))
        self.news.set()

    def _state(self, message: Any) -> None:
        self.states.append(msgspec.json.decode(message.data, type=DreamStatusEvent))
        self.news.set()


@pytest_asyncio.fixture
async def stage(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        stage = Stage(nats_server, tmp_path / "storage", stack)
        await stage.open()
        yield stage


@pytest.fixture(scope="session")
def clock() -> SystemClock:
    return CLOCK
