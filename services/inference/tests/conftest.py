"""Tiny models, built once per session, on one thread: a busy machine makes more threads slower."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import structlog
import torch
from PIL import Image

from reverie_inference.engine.engine import StepEngine
from reverie_inference.families.registry import CALLBACK
from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_inference.service import serve
from reverie_inference.settings import InferenceSettings, Settings, StorageSettings
from reverie_inference.upscalers.library import load_upscalers
from reverie_inference.worker.loading import EngineOffer
from reverie_inference.worker.worker import InferenceWorker
from reverie_jobs.mirror import WORKERS, JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import request_cancel
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType, Lane, Worker
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bus, Entry, Message, SnapshotEnd
from reverie_runtime.clock import SystemClock
from reverie_runtime.settings import DrainSettings, NatsSettings
from reverie_storage.filesystem import FilesystemStorage
from reverie_testing.nats_server import NatsServer
from reverie_testing.tiny_models import (
    original_checkpoint,
    tiny_sd3_pipeline,
    tiny_sd_pipeline,
    tiny_sdxl_pipeline,
)

torch.set_num_threads(1)
# As services log: the default traceback shows local variables, which takes seconds where they are tensors.
structlog.configure(
    processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Diffusers folders by family."""
    root = tmp_path_factory.mktemp("models")
    return {
        "sd15": tiny_sd_pipeline(root / "tiny-sd"),
        "sdxl": tiny_sdxl_pipeline(root / "tiny-sdxl"),
        "sd3": tiny_sd3_pipeline(root / "tiny-sd3"),
        "tiny_vae": tiny_sd_pipeline(root / "tiny-taesd", tiny_vae=True),
    }


@pytest.fixture(scope="session")
def models(model_folders: dict[str, Path]) -> dict[str, LoadedModel]:
    """The same, loaded."""
    loaded = {name: load_pipeline(path, device="cpu") for name, path in model_folders.items()}
    # As if no family knew it: its own loop makes the picture.
    return loaded | {"own_loop": replace(loaded["sd3"], family=CALLBACK)}


@pytest.fixture(scope="session")
def single_file(models: dict[str, LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1.x model as one file in the original layout."""
    path = tmp_path_factory.mktemp("files") / "single.safetensors"
    return original_checkpoint(models["sd15"].pipeline, path)


EVENT_TIMEOUT_S = 60.0


class Gate:
    """Holds the model before each evaluation, in the engine's thread, until the test lets it go on."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._turns = threading.Semaphore(0)
        self._fault: BaseException | None = None

    def __call__(self, *_: Any) -> None:
        while not self._open.is_set() and not self._turns.acquire(timeout=0.01):
            pass
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def let(self, evaluations: int) -> None:
        """Let this many evaluations through."""
        self._turns.release(evaluations)

    def open(self) -> None:
        """Hold nothing any more."""
        self._open.set()

    def fail_next(self, fault: BaseException) -> None:
        """Make the next evaluation raise."""
        self._fault = fault


class World:
    """A bus as everybody sees it, and workers on it."""

    def __init__(self, server: NatsServer, folder: Path, bus: Bus, store: JobStore, jobs: JobMirror) -> None:
        self.server = server
        self.folder = folder
        self.bus = bus
        self.store = store
        self.jobs = jobs
        self.storage = FilesystemStorage(folder / "storage")
        self._ids = itertools.count(1)

    def settings(self, model: Path | str, **options: Any) -> Settings:
        """Settings of a worker on this world's bus and storage."""
        deadline_s = options.pop("deadline_s", 30.0)
        return Settings(
            inference=InferenceSettings(model=str(model), device="cpu", threads=1, **options),
            nats=NatsSettings(url=self.server.url),
            storage=StorageSettings(path=str(self.folder / "storage")),
            drain=DrainSettings(deadline_s=deadline_s),
        )

    @asynccontextmanager
    async def worker(
        self, model: LoadedModel | Path | str, *, gate: Gate | None = None, **options: Any
    ) -> AsyncIterator[InferenceWorker]:
        """A worker of its own connection, with this model (loaded, or to be loaded); the gate holds its steps."""
        options.setdefault("name", "worker")
        options.setdefault("slots", 1)
        load = None
        reference = model.reference if isinstance(model, LoadedModel) else model
        settings = self.settings(reference, **options)
        handle = None
        if isinstance(model, LoadedModel):
            place = settings.inference.super_resolution
            upscalers = load_upscalers(Path(place)) if place else {}
            engine = StepEngine(
                Shelf.holding(model),
                upscalers=upscalers,
                capacity=settings.inference.slots,
                checkpoint_steps=settings.inference.checkpoint_steps,
            )

            def load() -> Any:
                return engine, EngineOffer(engine, model.device)

            if gate is not None:
                handle = model.pipeline.unet.register_forward_pre_hook(gate)
        bus = await connect_nats(self.server.url, name="worker")
        try:
            async with serve(settings, bus=bus, clock=SystemClock(), load=load) as worker:
                try:
                    yield worker
                finally:
                    if gate is not None:
                        gate.open()
        finally:
            if handle is not None:
                handle.remove()
            await bus.close()

    async def submit(self, **params: Any) -> str:
        """A job for the tiny model; its id."""
        defaults = {"prompt": "a red cat", "size": "64x64", "num_inference_steps": 3, "seed": 7}
        owner = params.pop("owner", "somebody")
        lane = params.pop("priority", Lane.NORMAL)
        now = time.time()
        job = Job(
            id=f"job-{next(self._ids)}",
            owner=owner,
            type=JobType.GENERATE,
            state=JobState.QUEUED,
            priority=lane,
            position=now,
            params=GenerateParams(**{**defaults, **params}),
            created_at=now,
            enqueued_at=now,
            updated_at=now,
        )
        return (await self.store.submit(job)).stored.job.id

    async def until(self, job_id: str, condition: Callable[[Job], bool]) -> Job:
        """The job's record as soon as it fulfils the condition."""
        found: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def look(job: Job | None) -> None:
            if job is not None and job.id == job_id and condition(job) and not found.done():
                found.set_result(job)

        stop = self.jobs.listen(lambda change: look(change.record))
        look(self.jobs.get(job_id))
        try:
            async with asyncio.timeout(EVENT_TIMEOUT_S):
                return await found
        finally:
            stop()

    async def ended(self, job_id: str) -> Job:
        """The job's record once it is terminal."""
        return await self.until(job_id, lambda job: job.state.terminal)

    async def runs(self, job_id: str) -> Job:
        """The job's record once it runs."""
        return await self.until(job_id, lambda job: job.state is JobState.RUNNING)

    async def cancel(self, job_id: str) -> None:
        """Ask for a job to stop, as a gateway does."""
        await self.store.apply(job_id, partial(request_cancel, now=time.time()))

    async def picture(self, key: str) -> Image.Image:
        """A stored picture."""
        stored = await self.storage.stat(key)
        assert stored is not None
        parts = [part async for part in self.storage.read(key, start=0, stop=stored.size_bytes)]
        return Image.open(io.BytesIO(b"".join(parts)))

    async def listen(self, subject: str) -> asyncio.Queue[Message]:
        """Messages on a subject from now on."""
        heard: asyncio.Queue[Message] = asyncio.Queue()

        async def hear(message: Message) -> None:
            await heard.put(message)

        await self.bus.subscribe(subject, hear)
        return heard

    async def workers(self) -> dict[str, Worker]:
        """Records of all workers now."""
        bucket = await self.bus.bucket(WORKERS)
        found = {}
        async with bucket.watch() as events:
            async for event in events:
                if isinstance(event, SnapshotEnd):
                    return found
                if isinstance(event, Entry) and event.value is not None:
                    found[event.key] = msgspec.json.decode(event.value, type=Worker)
        return found


@pytest_asyncio.fixture
async def world(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    """A real nats-server, a mirror of its jobs, and an empty storage."""
    bus = await connect_nats(nats_server.url, name="world")
    bucket = await bus.bucket(JOBS)
    operations = itertools.count(1)
    store = JobStore(bucket, new_op=lambda: f"world-{next(operations)}")
    async with follow(JobMirror(), bucket) as jobs:
        yield World(nats_server, tmp_path, bus, store, jobs)
    await bus.close()


@pytest.fixture
def gate() -> Gate:
    """Holds the model's evaluations."""
    return Gate()
