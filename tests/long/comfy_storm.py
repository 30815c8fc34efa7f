"""Many ComfyUI jobs over fake servers in a storm of faults, and a bridge that is killed: none stuck, false, twice.

    .venv/bin/python tests/long/comfy_storm.py [--jobs 10000] [--servers 4] [--seed 1] [--every 1] [--kill-every 20]

Frames are lost, doubled, late and swapped; sockets break, freeze and go deaf; servers are killed and lose their
worker; answers to prompts are lost or lie; the bridge, a process of its own, is killed.  A part of the jobs is
cancelled on its way, a part fails by a node of its own.  Each completed job's picture must be that of its seed.
Prints one JSON line; exit code 1 if a job did not end, ended twice, or is completed without its own picture.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from reverie_jobs.mirror import Change, JobMirror, follow
from reverie_jobs.reaper import Reaper
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import Refused, request_cancel
from reverie_protocol.jobs import ComfyParams, Job, JobState, JobType
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.clock import SystemClock
from reverie_storage.filesystem import FilesystemStorage
from reverie_testing.fake_comfy import RECORDED, FakeComfy
from reverie_testing.fake_comfy.pictures import tint
from reverie_testing.fake_comfy.storm import Storm
from reverie_testing.nats_server import NatsServer, free_port
from reverie_testing.service_process import ServiceProcess

CANCELLED_SHARE, FAILING_SHARE = 0.1, 0.05
#: Jobs that wait at once.
DEPTH = 200
#: Seconds without any job's end after which the rest counts as stuck.
STUCK_S = 180.0


def graph(seed: int, *, fails: bool) -> dict[str, Any]:
    """A graph whose picture follows from its seed."""
    loop = {"steps": 4, "delay_ms": 10, "size": 16, "preview": "none", "seed": seed}
    nodes = {
        "1": {"class_type": "RecLoop", "inputs": loop},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "storm"}},
    }
    if fails:
        nodes["2"]["inputs"]["images"] = ["3", 0]
        nodes["3"] = {"class_type": "RecFail", "inputs": {"image": ["1", 0], "message": "as asked"}}
    return nodes


class Trial:
    """Jobs, what was wished of them, and what became of them."""

    def __init__(self, store: JobStore, jobs: JobMirror, storage: FilesystemStorage, seed: int) -> None:
        self.store = store
        self.jobs = jobs
        self.storage = storage
        self.draw = random.Random(seed)
        self.seeds: dict[str, int] = {}
        self.fails: set[str] = set()
        self.cancelled: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.ended_at = time.monotonic()
        self.news = asyncio.Event()
        jobs.listen(self._on_job)

    def _on_job(self, change: Change[Job]) -> None:
        job = change.record
        if job is not None and job.state.terminal and change.live:
            self.ends[job.id] += 1
            self.ended_at = time.monotonic()
            self.news.set()

    async def submit(self, number: int) -> None:
        """One job, and perhaps its cancel some time later."""
        job_id, now = f"storm-{number}", time.time()
        self.seeds[job_id] = number
        if self.draw.random() < FAILING_SHARE:
            self.fails.add(job_id)
        job = Job(
            id=job_id,
            owner=f"owner-{number % 7}",
            type=JobType.COMFY,
            state=JobState.QUEUED,
            position=now,
            params=ComfyParams(workflow=graph(number, fails=job_id in self.fails)),
            created_at=now,
            enqueued_at=now,
            updated_at=now,
        )
        await self.store.submit(job)
        if self.draw.random() < CANCELLED_SHARE:
            self.cancelled.add(job_id)
            asyncio.get_running_loop().call_later(
                self.draw.uniform(0, 10), lambda: asyncio.ensure_future(self.cancel(job_id))
            )

    async def cancel(self, job_id: str) -> None:
        """As a gateway does."""
        with contextlib.suppress(Refused):
            await self.store.apply(job_id, partial(request_cancel, now=time.time()))

    async def all_ended(self) -> bool:
        """Whether every job has ended, once none does any more."""
        while len(self.ends) < len(self.seeds):
            if time.monotonic() - self.ended_at > STUCK_S:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await self.news.wait()
            self.news.clear()
        return True

    async def judge(self) -> dict[str, Any]:
        """What is wrong, by kind, and how the jobs ended."""
        wrong: dict[str, list[str]] = {"stuck": [], "twice": [], "false": [], "unexplained": []}
        states: Counter[str] = Counter()
        for job_id, seed in self.seeds.items():
            job = self.jobs.get(job_id)
            if job is None or not job.state.terminal:
                wrong["stuck"].append(job_id)
                continue
            states[job.state] += 1
            if self.ends[job_id] != 1:
                wrong["twice"].append(job_id)
            if job.state is JobState.COMPLETED and (
                job_id in self.fails or not await self._is_picture_of(job, seed)
            ):
                wrong["false"].append(job_id)
            if job.state is JobState.CANCELLED and job_id not in self.cancelled:
                wrong["unexplained"].append(job_id)
            if job.state is JobState.FAILED and job_id not in self.fails and job.losses < 2:
                wrong["unexplained"].append(f"{job_id}: {job.error.message if job.error else ''}")
        return {
            "states": dict(states),
            "wrong": {kind: jobs for kind, jobs in wrong.items() if jobs},
            "attempts": sum(job.attempt for job in self.jobs),
        }

    async def _is_picture_of(self, job: Job, seed: int) -> bool:
        if len(job.outputs) != 1:
            return False
        found = await self.storage.stat(job.outputs[0].key)
        if found is None:
            return False
        parts = [part async for part in self.storage.read(found.key, start=0, stop=found.size_bytes)]
        pixel = Image.open(io.BytesIO(b"".join(parts))).convert("RGB").getpixel((0, 0))
        colour = tint(seed)
        return pixel == (colour >> 16 & 0xFF, colour >> 8 & 0xFF, colour & 0xFF)


def bridge_of(folder: Path, nats_url: str, comfies: list[FakeComfy]) -> ServiceProcess:
    """The bridge as a process, quick to judge."""
    port = free_port()
    environment = {
        "REVERIE_NATS__URL": nats_url,
        "REVERIE_STORAGE__PATH": str(folder / "storage"),
        "REVERIE_COMFY__INSTANCES": ",".join(f"fake{n}={comfy.url}" for n, comfy in enumerate(comfies)),
        "REVERIE_COMFY__ALLOWED_NODES": "*",
        "REVERIE_COMFY__NAME": "storm",
        "REVERIE_COMFY__LOOK_S": "0.5",
        "REVERIE_COMFY__STATUS_S": "1",
        "REVERIE_COMFY__PING_S": "1",
        "REVERIE_COMFY__PONG_S": "3",
        "REVERIE_COMFY__SILENT_S": "5",
        "REVERIE_COMFY__INTERRUPT_S": "3",
        "REVERIE_COMFY__ANSWER_S": "3",
        "REVERIE_DRAIN__DEADLINE_S": "5",
        "REVERIE_HEALTH__PORT": str(port),
        "REVERIE_LOG__FORMAT": "console",
    }
    return ServiceProcess(
        "reverie_comfy_bridge", environment, url=f"http://127.0.0.1:{port}", log=folder / "bridge.log"
    )


async def keep_killing(
    bridge: ServiceProcess, every_s: float, draw: random.Random, kills: list[float]
) -> None:
    """Kill the bridge now and then, and start it again."""
    while True:
        await asyncio.sleep(draw.expovariate(1 / every_s))
        bridge.send(signal.SIGKILL)
        await asyncio.to_thread(bridge.wait)
        await asyncio.to_thread(bridge.start)
        kills.append(time.monotonic())


async def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole trial; what came of it."""
    server = NatsServer(folder)
    server.start()
    began_at = time.monotonic()
    kills: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(server.stop)
        bus = await connect_nats(server.url, name="storm")
        stack.push_async_callback(bus.close)
        bucket = await bus.bucket(JOBS)
        operations = itertools.count()
        store = JobStore(bucket, new_op=lambda: f"storm-{next(operations)}")
        jobs = await stack.enter_async_context(follow(JobMirror(), bucket))
        await stack.enter_async_context(Reaper(bus, store, jobs, clock=SystemClock()).run())
        versions = itertools.cycle(RECORDED)
        comfies = [
            await stack.enter_async_context(FakeComfy(next(versions), pace=options.pace))
            for _ in range(options.servers)
        ]
        bridge = bridge_of(folder, server.url, comfies)
        stack.enter_context(bridge)
        await asyncio.to_thread(bridge.wait_ready)
        trial = Trial(store, jobs, FilesystemStorage(folder / "storage"), options.seed)
        storms = [Storm(options.seed + n, every_s=options.every) for n in range(options.servers)]
        async with contextlib.AsyncExitStack() as weather:
            for storm, comfy in zip(storms, comfies, strict=True):
                await weather.enter_async_context(storm.over(comfy))
            killing = None
            if options.kill_every:
                draw = random.Random(options.seed)
                killing = asyncio.create_task(keep_killing(bridge, options.kill_every, draw, kills))
            for number in range(options.jobs):
                while len(trial.seeds) - len(trial.ends) > DEPTH:
                    await asyncio.sleep(0.05)
                    if time.monotonic() - trial.ended_at > STUCK_S:
                        break
                await trial.submit(number)
            # The last ones end in calm weather: what is left must not wait for it for ever.
            while len(trial.seeds) - len(trial.ends) > min(DEPTH, options.jobs) / 2:
                await asyncio.sleep(0.1)
                if time.monotonic() - trial.ended_at > STUCK_S:
                    break
            if killing is not None:
                killing.cancel()
                await asyncio.gather(killing, return_exceptions=True)
        await trial.all_ended()
        report = await trial.judge()
        report["left_inside"] = [len(comfy.instance.queue.pending) for comfy in comfies]
        if report["wrong"]:
            report["log"] = str(folder / "bridge.log")
    faults = Counter(name for storm in storms for name in storm.happened)
    seconds = round(time.monotonic() - began_at, 1)
    return {
        "jobs": options.jobs,
        "seconds": seconds,
        "kills": len(kills),
        "faults": dict(faults),
        **report,
    }


def main() -> int:
    """Exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between faults of one server")
    parser.add_argument("--kill-every", type=float, default=20.0, help="seconds between kills; 0 is never")
    parser.add_argument("--pace", type=float, default=1.0, help="how slow the fakes' nodes are")
    parser.add_argument("--folder", type=Path, help="kept afterwards; without it a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reverie-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(run(options, folder))
        print(json.dumps(report))
        return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
