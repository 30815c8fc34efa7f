"""A gateway really served on a socket over a real nats-server, and a worker that does what the test says."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from reverie_gateway.composition import serve
from reverie_gateway.settings import AuthSettings, GatewaySettings, Settings, StorageSettings
from reverie_jobs.mirror import WORKERS, JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import Claim, cancel_finished, claim, complete, fail
from reverie_protocol.comfy import ComfyCheck, ComfyVerdict, ComfyWorkflows
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobError,
    JobMeta,
    JobState,
    JobType,
    ModeInfo,
    Output,
    Phase,
    Progress,
    Vram,
    Worker,
    WorkerState,
)
from reverie_protocol.preview import PreviewHeader, encode_preview
from reverie_protocol.subjects import (
    COMFY_CHECK,
    COMFY_WORKFLOWS,
    job_preview,
    job_progress,
    job_watch,
    worker_ctl,
    worker_key,
    worker_ping,
)
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bus, BusError, Message
from reverie_runtime.clock import SystemClock
from reverie_runtime.health import Health
from reverie_runtime.metrics import Metrics
from reverie_runtime.settings import DrainSettings
from reverie_storage.filesystem import FilesystemStorage
from reverie_storage.port import url_of
from reverie_testing.nats_server import NatsServer

EVENT_TIMEOUT_S = 20.0
HEARTBEAT_S = 0.5
PROMPT = "a red circle on a blue background"
CLOCK = SystemClock()
_serial = itertools.count()


class BenchWorker:
    """Claims, moves and finishes jobs on the real bus when told to; `serve` makes it do all by itself."""

    def __init__(self, bus: Bus, storage: FilesystemStorage, **record: Any) -> None:
        self.bus = bus
        self.storage = storage
        self.mirror = JobMirror()
        self.hints: asyncio.Queue[str] = asyncio.Queue()
        self.watched: asyncio.Queue[str] = asyncio.Queue()
        defaults: dict[str, Any] = {
            "name": f"bench{next(_serial)}",
            "incarnation": "1",
            "service": "inference",
            "state": WorkerState.READY,
            "backend": "bench",
            "device": "cpu",
            "job_types": (JobType.GENERATE,),
            "modes": {"tiny": ModeInfo(model="tiny", default_size="64x64", styles=("ink",))},
            "mode": "tiny",
            "schedulers": ("DDIM",),
            "superres": True,
            "vram": Vram(device="Bench", total_gb=8.0, used_gb=2.0, available_gb=6.0, usage_percent=25.0),
        }
        self.record = Worker(**(defaults | record))

    @property
    def key(self) -> str:
        return worker_key(self.record.name, self.record.incarnation)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BenchWorker]:
        bucket = await self.bus.bucket(JOBS)
        self.store = JobStore(bucket, new_op=lambda: f"{self.key}-{next(_serial)}")
        self.workers = await self.bus.bucket(WORKERS)
        subscriptions = [
            await self.bus.subscribe(worker_ping(self.key), self._pong),
            await self.bus.subscribe(worker_ctl(self.key), self._hint),
            await self.bus.subscribe(job_watch("*"), self._watch),
        ]
        async with follow(self.mirror, bucket):
            await self.beat()
            beating = asyncio.create_task(self._heart())
            try:
                yield self
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                for subscription in subscriptions:
                    await subscription.unsubscribe()
                if self.bus.connected:
                    await self.workers.delete(self.key)

    async def beat(self, **changes: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)
        await self.workers.put(self.key, msgspec.json.encode(self.record))

    async def sees(self, job_id: str, condition: Callable[[Job], bool] = lambda job: True) -> Job:
        """The job, once the mirror has it in that condition."""
        seen: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def look(_change: object) -> None:
            job = self.mirror.get(job_id)
            if job is not None and condition(job) and not seen.done():
                seen.set_result(job)

        stop = self.mirror.listen(look)
        look(None)
        try:
            async with asyncio.timeout(EVENT_TIMEOUT_S):
                return await seen
        finally:
            stop()

    async def next_job(self) -> Job:
        """The only waiting job, once there is one."""
        arrived = asyncio.Event()
        stop = self.mirror.listen(lambda change: arrived.set())
        try:
            async with asyncio.timeout(EVENT_TIMEOUT_S):
                while not self.mirror.queued:
                    arrived.clear()
                    await arrived.wait()
        finally:
            stop()
        return next(iter(self.mirror.queued.values()))

    async def claim(self, job_id: str) -> Claim:
        await self.sees(job_id, lambda job: job.state is JobState.QUEUED)
        stored = await self.store.apply(job_id, lambda job: claim(job, worker=self.key, now=CLOCK.time()))
        return Claim(job_id, self.key, stored.job.attempt)

    async def progress(
        self, held: Claim, step: int, steps: int = 4, *, step_seconds: float = 0.0, node: str = ""
    ) -> None:
        progress = Progress(
            job_id=held.job_id,
            attempt=held.attempt,
            phase=Phase.DENOISING,
            step=step,
            steps=steps,
            progress=step / steps,
            step_seconds=step_seconds,
            node=node,
        )
        await self.bus.publish(job_progress(held.job_id), msgspec.json.encode(progress))

    async def preview(self, held: Claim, step: int = 1, picture: bytes = b"picture") -> None:
        header = PreviewHeader(held.job_id, held.attempt, step, 4, 8, 8)
        await self.bus.publish(job_preview(held.job_id), encode_preview(header, picture))

    async def complete(self, held: Claim, *, content: bytes | None = None) -> Job:
        job = self.mirror.get(held.job_id)
        params = job.params
        media = "image/jpeg" if params.superres_format == "jpeg" and params.superres else "image/png"
        key = await self.storage.put(content or f"picture {held.job_id}".encode(), content_type=media)
        outputs = (Output(url=url_of(key), key=key, content_type=media, width=8, height=8),)
        meta = _meta(params)
        return await self._end(
            held, lambda job, now: complete(job, held, outputs=outputs, meta=meta, now=now)
        )

    async def fail(self, held: Claim, code: str, message: str = "it broke") -> Job:
        error = JobError(code, message)
        return await self._end(held, lambda job, now: fail(job, held, error=error, now=now))

    async def cancelled(self, held: Claim, *, partial: bytes | None = None) -> Job:
        outputs: tuple[Output, ...] = ()
        if partial is not None:
            key = await self.storage.put(partial, content_type="image/png")
            outputs = (Output(url=url_of(key), key=key),)
        return await self._end(
            held, lambda job, now: cancel_finished(job, held, outputs=outputs, meta=None, now=now)
        )

    async def do_next(self) -> Job:
        """Claim the waiting job, take two steps, finish it."""
        held = await self.claim((await self.next_job()).id)
        for step in (1, 2):
            await self.progress(held, step, 2)
        return await self.complete(held)

    async def serve(self) -> None:
        """Do all jobs, one after the other, also across outages of the bus."""
        while True:
            try:
                await self.do_next()
            except (BusError, TimeoutError):
                await asyncio.sleep(0.05)

    async def _end(self, held: Claim, change: Callable[[Job, float], Job]) -> Job:
        stored = await self.store.apply(held.job_id, lambda job: change(job, CLOCK.time()))
        return stored.job

    async def _heart(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                await self.beat(beat_at=CLOCK.time())
            except BusError:
                continue

    async def _pong(self, message: Message) -> None:
        await self.bus.publish(message.reply, b"")

    async def _hint(self, message: Message) -> None:
        self.hints.put_nowait(json.loads(message.data)["jobId"])

    async def _watch(self, message: Message) -> None:
        self.watched.put_nowait(message.subject.rpartition(".")[2])


def _meta(params: GenerateParams) -> JobMeta:
    return JobMeta(
        seed=params.seed or 0,
        backend="bench",
        sr=params.superres,
        mode=params.mode or "tiny",
        sr_model="bench-sr" if params.superres else "",
        sr_passes=params.superres_magnitude if params.superres else 0,
        sr_scale_per_pass=2 if params.superres else 0,
        sr_format=params.superres_format if params.superres else "",
    )


class BenchBridge:
    """Answers gateways' questions about ComfyUI as the test says, on the real bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.verdict = ComfyVerdict()
        self.workflows = ComfyWorkflows(workflows=())
        self.checks: list[ComfyCheck] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BenchBridge]:
        subscriptions = [
            await self.bus.subscribe(COMFY_CHECK, self._check),
            await self.bus.subscribe(COMFY_WORKFLOWS, self._list),
        ]
        try:
            yield self
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()

    async def _check(self, message: Message) -> None:
        self.checks.append(msgspec.json.decode(message.data, type=ComfyCheck))
        await self.bus.publish(message.reply, msgspec.json.encode(self.verdict))

    async def _list(self, message: Message) -> None:
        await self.bus.publish(message.reply, msgspec.json.encode(self.workflows))


class Client:
    """A WebSocket client that remembers what it was sent."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[dict[str, Any]] = []
        self.pictures: list[bytes] = []

    async def send(self, message: dict[str, Any]) -> None:
        await self.connection.send(json.dumps(message))

    async def submit(self, **fields: Any) -> str:
        """Submit a generate job; its id, once acknowledged."""
        await self.send({"type": "job:submit", "jobType": "generate", "prompt": PROMPT, **fields})
        return (await self.until("job:ack"))["jobId"]

    async def next(self) -> dict[str, Any] | bytes:
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            frame = await self.connection.recv()
        if isinstance(frame, bytes):
            self.pictures.append(frame)
            return frame
        self.seen.append(json.loads(frame))
        return self.seen[-1]

    async def until(self, *types: str, **fields: Any) -> dict[str, Any]:
        """The next message of one of these types whose fields are as given."""
        while True:
            message = await self.next()
            if not isinstance(message, dict) or message["type"] not in types:
                continue
            if fields.items() <= message.items():
                return message

    async def until_picture(self) -> bytes:
        while True:
            message = await self.next()
            if isinstance(message, bytes):
                return message

    async def settle(self) -> None:
        """Read everything that was sent before now."""
        mark = f"settled-{next(_serial)}"
        await self.send({"type": "ping", "id": mark})
        await self.until("pong", id=mark)

    def types(self, job_id: str) -> list[str]:
        return [message["type"] for message in self.seen if message.get("jobId") == job_id]


class Stage:
    """One nats-server with whatever runs on it."""

    def __init__(self, server: NatsServer, folder: Path, stack: AsyncExitStack) -> None:
        self.server = server
        self.storage = FilesystemStorage(folder)
        self.storage_folder = folder
        self._stack = stack

    async def bus(self, name: str) -> Bus:
        bus = await connect_nats(self.server.url, name=name)
        self._stack.push_async_callback(bus.close)
        return bus

    async def worker(self, **record: Any) -> BenchWorker:
        worker = BenchWorker(await self.bus("bench-worker"), self.storage, **record)
        return await self._stack.enter_async_context(worker.running())

    async def bridge(self) -> BenchBridge:
        """What answers for ComfyUI."""
        bridge = BenchBridge(await self.bus("bench-bridge"))
        return await self._stack.enter_async_context(bridge.running())

    async def busy_worker(self, **record: Any) -> BenchWorker:
        """A worker that does every job by itself."""
        worker = await self.worker(**record)
        serving = asyncio.create_task(worker.serve())
        self._stack.callback(serving.cancel)
        return worker

    async def gateway(self, **options: Any) -> SimpleNamespace:
        """Another gateway: `url`, `http` (a client of it), `socket()` (a WebSocket to it) and `leave()`."""
        drain_s = options.pop("drain_s", 3.0)
        storage_path = str(options.pop("storage_path", self.storage_folder))
        storage = StorageSettings(**({"path": storage_path} | options.pop("storage_settings", {})))
        auth = options.pop("auth", AuthSettings())
        settings = Settings(
            auth=auth,
            gateway=GatewaySettings(**({"port": 0} | options)),
            storage=storage,
            drain=DrainSettings(deadline_s=drain_s),
        )
        bus = await self.bus("gateway")
        health = Health()
        health.add_bus(bus)
        stack = AsyncExitStack()
        await self._stack.enter_async_context(stack)
        running = await stack.enter_async_context(
            serve(settings, bus=bus, clock=CLOCK, health=health, metrics=Metrics())
        )
        http = httpx.AsyncClient(base_url=running.url, timeout=EVENT_TIMEOUT_S, trust_env=False)
        await self._stack.enter_async_context(http)
        ws_url = running.url.replace("http", "ws") + "/v1/ws"
        return SimpleNamespace(
            url=running.url,
            port=running.port,
            http=http,
            bus=bus,
            socket=_sockets(ws_url),
            leave=stack.aclose,
        )


def _sockets(ws_url: str) -> Callable[..., Any]:
    @asynccontextmanager
    async def socket(query: str = "", **options: Any) -> AsyncIterator[Client]:
        async with connect(ws_url + query, proxy=None, max_size=None, **options) as connection:
            yield Client(connection)

    return socket


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    (folder / "nats").mkdir()
    server = NatsServer(folder / "nats")
    server.start()
    try:
        async with AsyncExitStack() as stack:
            yield Stage(server, folder / "storage", stack)
    finally:
        server.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A stage that the tests of one module share; they leave nats-server running and no job unfinished."""
    async with staged(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage: Stage) -> SimpleNamespace:
    """The module's gateway."""
    return await stage.gateway()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(stage: Stage, gateway: SimpleNamespace) -> BenchWorker:
    """The module's worker, known to its gateway; it does what the test says."""
    worker = await stage.worker()
    await known_to(gateway)
    return worker


async def known_to(gateway: SimpleNamespace, workers: int = 1) -> None:
    """Wait until a gateway counts that many workers."""
    async with gateway.socket() as client:
        while True:
            if (await client.until("system:status"))["workers"] >= workers:
                return


@pytest_asyncio.fixture(loop_scope="module")
async def own_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage of this test's own: kill what you like."""
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def prompt() -> str:
    """A prompt to submit."""
    return PROMPT
