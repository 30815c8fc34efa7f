"""A real gateway process over a real nats-server, and running jobs whose worker is this process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import structlog
from raw_socket import NatsPublisher

from reverie_jobs.mirror import WORKERS
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import claim, reprioritise
from reverie_protocol.jobs import JobType, Lane, ModeInfo, Phase, Progress, Worker, WorkerState
from reverie_protocol.subjects import job_progress, worker_key, worker_ping
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Message
from reverie_testing.nats_server import NatsServer, free_port
from reverie_testing.service_process import ServiceProcess

HEARTBEAT_S = 0.5
PROGRESS_MARKER = b'"job:progress"'
STATE_MARKER = b'"job:state"'
_RECORD = Worker(
    name="benchmark",
    incarnation="1",
    service="inference",
    state=WorkerState.READY,
    backend="benchmark",
    device="cpu",
    job_types=(JobType.GENERATE,),
    modes={"tiny": ModeInfo(model="tiny", default_size="64x64")},
    mode="tiny",
)


class Stage:
    """`port` and `pid` of the gateway; events are made with `progress` and `change`."""

    def __init__(self, nats: NatsServer, gateway: ServiceProcess, port: int) -> None:
        self.port = port
        self.process = psutil.Process(gateway.pid)
        self.nats_process = psutil.Process(nats.pid)
        self.url = f"http://127.0.0.1:{port}"
        self._nats_url = nats.url
        self._publisher = NatsPublisher(nats.port)
        self._steps = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._job_ids: list[str] = []
        self._lanes = itertools.cycle((Lane.URGENT, Lane.NORMAL))

    def progress(self, jobs: int, *, node: str = "") -> None:
        """One progress message of each of the first `jobs` jobs, in one write to NATS."""
        step = next(self._steps)
        messages = []
        for job_id in self._job_ids[:jobs]:
            told = Progress(
                job_id=job_id,
                attempt=1,
                phase=Phase.DENOISING,
                step=step,
                steps=1_000_000,
                progress=step / 1_000_000,
                step_seconds=0.05,
                node=node,
            )
            data = msgspec.json.encode(told)
            messages.append(b"PUB %s %d\r\n%s\r\n" % (job_progress(job_id).encode(), len(data), data))
        self._publisher.send(b"".join(messages))

    def publish(self, subject: str, data: bytes) -> None:
        """One message on NATS, as another service would send it."""
        self._publisher.send(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(data), data))

    def change(self) -> None:
        """One durable change of a job's record: another lane for a running job."""
        lane = next(self._lanes)
        asyncio.run_coroutine_threadsafe(
            self._store.apply(
                self._job_ids[0], lambda job: reprioritise(job, lane=lane, position=None, now=time.time())
            ),
            self._loop,
        ).result(timeout=20)

    @contextmanager
    def working(self, jobs: int) -> Iterator[None]:
        """Submit jobs, claim them all, and keep their worker alive."""
        ready, ended = threading.Event(), asyncio.Event()
        thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._work(jobs, ready, ended),)
        )
        thread.start()
        try:
            if not ready.wait(60):
                raise RuntimeError("the jobs could not be claimed")
            yield
        finally:
            self._loop.call_soon_threadsafe(ended.set)
            thread.join()
            self._publisher.close()

    async def _work(self, jobs: int, ready: threading.Event, ended: asyncio.Event) -> None:
        key = worker_key(_RECORD.name, _RECORD.incarnation)
        async with AsyncExitStack() as stack:
            bus = await connect_nats(self._nats_url, name="benchmark-worker")
            stack.push_async_callback(bus.close)
            numbers = itertools.count()
            self._store = JobStore(await bus.bucket(JOBS), new_op=lambda: f"benchmark-{next(numbers)}")
            workers = await bus.bucket(WORKERS)

            async def pong(message: Message) -> None:
                await bus.publish(message.reply, b"")

            await bus.subscribe(worker_ping(key), pong)
            await workers.put(key, msgspec.json.encode(_RECORD))
            self._job_ids = await self._submit(jobs)
            for job_id in self._job_ids:
                await self._store.apply(job_id, lambda job: claim(job, worker=key, now=time.time()))
            ready.set()
            while not ended.is_set():
                await self._beat(workers, key)
                await asyncio.sleep(HEARTBEAT_S)

    async def _beat(self, workers: Any, key: str) -> None:
        await workers.put(key, msgspec.json.encode(msgspec.structs.replace(_RECORD, beat_at=time.time())))

    async def _submit(self, jobs: int) -> list[str]:
        body = {"jobType": "generate", "prompt": "a red circle", "size": "64x64"}
        async with httpx.AsyncClient(base_url=self.url, timeout=20) as http:
            answers = [await http.post("/v1/jobs", json=body) for _ in range(jobs)]
        return [answer.raise_for_status().json()["jobId"] for answer in answers]


@contextmanager
def gateway_stage(*, jobs: int, environment: Sequence[tuple[str, str]] = ()) -> Iterator[Stage]:
    """A gateway with everything on, and `jobs` running jobs of its one owner."""
    # What is printed are figures.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="reverie-benchmark-") as folder:
        nats = NatsServer(Path(folder))
        nats.start()
        port = free_port()
        settings = {
            "REVERIE_NATS__URL": nats.url,
            "REVERIE_GATEWAY__PORT": str(port),
            "REVERIE_STORAGE__PATH": f"{folder}/storage",
        }
        gateway = ServiceProcess(
            "reverie_gateway",
            settings | dict(environment),
            url=f"http://127.0.0.1:{port}",
            log=Path(folder) / "gateway.log",
        )
        try:
            with gateway:
                gateway.wait_log("gateway serves")
                stage = Stage(nats, gateway, port)
                with stage.working(jobs):
                    yield stage
        finally:
            nats.stop()
