"""A bridge on a real nats-server, with fake ComfyUI servers behind it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest_asyncio

from reverie_comfy_bridge.service import Bridge, serve
from reverie_comfy_bridge.settings import ComfySettings, Settings
from reverie_jobs.comfy_instances import COMFY_INSTANCES, InstanceMirror, change_instance
from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import request_cancel
from reverie_protocol.instances import ComfyInstance, ComfyStatus
from reverie_protocol.jobs import ComfyParams, Job, JobState, JobType, Progress
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bucket, Bus, Message
from reverie_runtime.clock import SystemClock
from reverie_runtime.settings import DrainSettings, NatsSettings
from reverie_storage.filesystem import FilesystemStorage
from reverie_storage.settings import StorageSettings
from reverie_testing.fake_comfy import FakeComfy
from reverie_testing.nats_server import NatsServer

EVENT_TIMEOUT_S = 60.0


class World:
    """The bus as everybody sees it, bridges on it, and what they have done."""

    def __init__(
        self,
        server: NatsServer,
        folder: Path,
        bus: Bus,
        store: JobStore,
        jobs: JobMirror,
        table: Bucket,
        instances: InstanceMirror,
    ) -> None:
        self.server = server
        self.folder = folder
        self.bus = bus
        self.store = store
        self.jobs = jobs
        self.table = table
        self.instances = instances
        self.storage = FilesystemStorage(folder / "storage")
        self._ids = itertools.count(1)
        #: The bridge that was started last.
        self.latest_bridge: Bridge

    def settings(self, *comfies: FakeComfy, **options: Any) -> Settings:
        """Settings of a bridge with these servers, named a, b, …; `options` are of the section `comfy`."""
        deadline_s = options.pop("deadline_s", 10.0)
        instances = tuple(f"{name}={comfy.url}" for name, comfy in zip("abcdef", comfies, strict=False))
        options.setdefault("instances", instances)
        options.setdefault("allowed_nodes", ("*",))
        options.setdefault("name", "bridge")
        options.setdefault("look_s", 0.5)
        return Settings(
            comfy=ComfySettings(**options),
            nats=NatsSettings(url=self.server.url),
            storage=StorageSettings(path=str(self.folder / "storage")),
            drain=DrainSettings(deadline_s=deadline_s),
        )

    @asynccontextmanager
    async def bridge(self, *comfies: FakeComfy, **options: Any) -> AsyncIterator[Bridge]:
        """A bridge of its own connection, once its instances are connected (unless `wait=False`)."""
        wait = options.pop("wait", True)
        bus = await connect_nats(self.server.url, name="bridge")
        try:
            async with serve(self.settings(*comfies, **options), bus=bus, clock=SystemClock()) as bridge:
                if wait:
                    for name, _ in zip("abcdef", comfies, strict=False):
                        await self.instance(name, lambda each: each.status is ComfyStatus.CONNECTED)
                self.latest_bridge = bridge
                yield bridge
        finally:
            await bus.close()

    async def submit(self, graph: dict[str, Any] | None = None, **params: Any) -> str:
        """A job, of a graph or of the parameters of `ComfyParams`; its id."""
        now = time.time()
        more = {key: params.pop(key) for key in ("owner", "finish_by", "priority") if key in params}
        job = Job(
            id=f"job-{next(self._ids)}",
            type=JobType.COMFY,
            state=JobState.QUEUED,
            position=now,
            params=ComfyParams(workflow=graph, **params),
            created_at=now,
            enqueued_at=now,
            updated_at=now,
            **{"owner": "somebody", **more},
        )
        return (await self.store.submit(job)).stored.job.id

    async def until(self, job_id: str, condition: Callable[[Job], bool]) -> Job:
        """The job's record as soon as it fulfils the condition."""
        return await _heard(self.jobs, job_id, condition)

    async def ended(self, job_id: str) -> Job:
        """The job's record once it is terminal."""
        return await self.until(job_id, lambda job: job.state.terminal)

    async def runs(self, job_id: str) -> Job:
        """The job's record once it runs."""
        return await self.until(job_id, lambda job: job.state is JobState.RUNNING)

    async def instance(self, name: str, condition: Callable[[ComfyInstance], bool]) -> ComfyInstance:
        """The instance's record as soon as it fulfils the condition."""
        return await _heard(self.instances, name, condition)

    async def cancel(self, job_id: str) -> None:
        """Ask for a job to stop, as a gateway does."""
        await self.store.apply(job_id, partial(request_cancel, now=time.time()))

    async def stored(self, key: str) -> bytes:
        """A stored file."""
        found = await self.storage.stat(key)
        assert found is not None
        return b"".join([part async for part in self.storage.read(key, start=0, stop=found.size_bytes)])

    async def listen(self, subject: str) -> asyncio.Queue[Message]:
        """Messages on a subject from now on."""
        heard: asyncio.Queue[Message] = asyncio.Queue()
        await self.bus.subscribe(subject, heard.put_nowait)
        return heard

    @staticmethod
    def loop(steps: int = 5, delay_ms: int = 20, seed: int = 1, **more: Any) -> dict[str, Any]:
        """A graph of one node that takes its time, and one that saves what it made."""
        loop = {"steps": steps, "delay_ms": delay_ms, "size": 32, "preview": "none", "seed": seed, **more}
        return {
            "1": {"class_type": "RecLoop", "inputs": loop, "_meta": {"title": "Loop"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "made"}},
        }

    @staticmethod
    async def eventually(condition: Callable[[], Any], what: str) -> Any:
        """The first true value of a condition of this process."""
        deadline = time.monotonic() + EVENT_TIMEOUT_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited for {what}"
            await asyncio.sleep(0.01)
        return value

    @staticmethod
    def told(messages: asyncio.Queue[Message]) -> list[Progress]:
        """The progress messages that came."""
        waiting = [messages.get_nowait() for _ in range(messages.qsize())]
        return [msgspec.json.decode(message.data, type=Progress) for message in waiting]

    @staticmethod
    def outcomes(comfy: FakeComfy) -> dict[str, int]:
        """How the prompts of a server ended."""
        return dict(Counter(outcome for _, outcome in comfy.ended))

    @staticmethod
    async def foreign(comfy: FakeComfy, graph: dict[str, Any]) -> str:
        """Somebody else's prompt; its id."""
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{comfy.url}/prompt", json={"prompt": graph, "client_id": "somebody"})
        return str(answer.json()["prompt_id"])


async def _heard(mirror: Any, key: str, condition: Callable[[Any], bool]) -> Any:
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def look(record: Any) -> None:
        if record is not None and condition(record) and not found.done():
            found.set_result(record)

    stop = mirror.listen(lambda change: look(change.record) if change.key == key else None)
    look(mirror.get(key))
    try:
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            return await found
    except TimeoutError:
        raise AssertionError(f"{key} did not come so far: {mirror.get(key)}") from None
    finally:
        stop()


@pytest_asyncio.fixture
async def world(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    """A real nats-server, mirrors of its jobs and instances, and an empty storage."""
    bus = await connect_nats(nats_server.url, name="world")
    bucket, table = await bus.bucket(JOBS), await bus.bucket(COMFY_INSTANCES)
    operations = itertools.count(1)
    store = JobStore(bucket, new_op=lambda: f"world-{next(operations)}")
    async with follow(JobMirror(), bucket) as jobs, follow(InstanceMirror(), table) as instances:
        yield World(nats_server, tmp_path, bus, store, jobs, table, instances)
    await bus.close()


@pytest_asyncio.fixture
async def comfy() -> AsyncIterator[FakeComfy]:
    """A fake of the newest recorded version."""
    async with FakeComfy() as fake:
        yield fake


@pytest_asyncio.fixture
async def set_instance(world: World) -> Callable[..., Any]:
    """Changes what is wanted of an instance, as an administrator does."""

    async def change(name: str, **wish: Any) -> None:
        def changed(held: ComfyInstance | None) -> ComfyInstance:
            if held is None:
                return ComfyInstance(
                    name=name,
                    origin="admin",
                    status=ComfyStatus.DISCONNECTED,
                    updated_at=time.time(),
                    **wish,
                )
            return msgspec.structs.replace(held, **wish)

        await change_instance(world.table, name, changed)

    return change
