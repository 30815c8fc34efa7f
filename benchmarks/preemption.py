"""What an interactive user notices of endless background jobs, and how much of its time the engine spends in the
model when they fill it.

    .venv/bin/python benchmarks/preemption.py [--jobs 30] [--steps 10] [--background 8]
                                               [--only users|filling|previews]

`users`: one client submits interactive jobs, one after the other with pauses between, through the product; with
background jobs waiting at all times and without, in turns.  Noted are submit → first step told, and submit →
complete.  A step that has begun is finished, so what background adds may be one of its turns, which is measured in
the same run: the time between two steps of a background job.

`filling`: the engine in its thread, as the worker runs it, with background jobs refilled as they end; the share of
the thread's processor time that passes inside the networks (text encoder, denoiser, autoencoder).

`previews`: what the worker does for previews after each step while nobody watches, as a part of a step's processor
time; and whether the engine was asked for one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import threading
import time
from typing import Any, Final

import httpx
from product import BUILTIN_MODEL, percentile, running_product
from websockets.asyncio.client import ClientConnection, connect

from reverie_protocol.jobs import Lane
from reverie_testing.product import Product

BEYOND_STEP_S, MOST_SLOWER, UTILISED, UNWATCHED = 0.020, 0.05, 0.90, 0.005
#: Steps of a background job: more than an interactive one takes.
BACKGROUND_STEPS: Final = 30
PROMPT = "a green star on a white background"


class Listener:
    """One socket of the owner: when which of his jobs told what."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last: dict[str, tuple[int, float]] = {}
        self._changed = asyncio.Event()
        self.first: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        #: Seconds a step, by job.
        self.turns: dict[str, list[float]] = {}

    async def listen(self) -> None:
        """Until cancelled."""
        async for raw in self._socket:
            told, now = json.loads(raw), time.perf_counter()
            job_id = told.get("jobId", "")
            if told["type"] == "job:progress" and told["step"]:
                self.first.setdefault(job_id, now)
                self._note_turn(job_id, told["step"], now)
            elif told["type"] in ("job:complete", "job:error"):
                self.ended[job_id] = now
                self._changed.set()

    async def end_of(self, job_id: str) -> float:
        """When a job ended."""
        while job_id not in self.ended:
            self._changed.clear()
            await self._changed.wait()
        return self.ended[job_id]

    def _note_turn(self, job_id: str, step: int, now: float) -> None:
        before = self._last.get(job_id)
        if before is not None and step > before[0]:
            self.turns.setdefault(job_id, []).append((now - before[1]) / (step - before[0]))
        self._last[job_id] = (step, now)


async def background(http: httpx.AsyncClient, listener: Listener, depth: int) -> None:
    """Keep so many background jobs in the queue or at work until cancelled; then take them away."""
    alive: list[str] = []
    number = 0
    try:
        while True:
            alive = [job_id for job_id in alive if job_id not in listener.ended]
            while len(alive) < depth:
                number += 1
                alive.append(await submit(http, lane=Lane.BACKGROUND, steps=BACKGROUND_STEPS, seed=number))
            await asyncio.sleep(0.1)
    finally:
        for job_id in alive:
            await http.delete(f"/v1/jobs/{job_id}")
        for job_id in alive:
            await listener.end_of(job_id)


async def submit(http: httpx.AsyncClient, *, lane: Lane, steps: int, seed: int) -> str:
    """A job; its id."""
    body = {
        "jobType": "generate",
        "prompt": PROMPT,
        "size": "64x64",
        "num_inference_steps": steps,
        "seed": seed,
        "priority": int(lane),
    }
    answer = await http.post("/v1/jobs", json=body)
    return str(answer.raise_for_status().json()["jobId"])


async def users(product: Product, options: argparse.Namespace) -> None:
    """In turns with background and without."""
    rng = random.Random(options.seed)
    waits: dict[bool, list[float]] = {True: [], False: []}
    whole: dict[bool, list[float]] = {True: [], False: []}
    mine: set[str] = set()
    async with (
        httpx.AsyncClient(base_url=product.url, timeout=60, trust_env=False) as http,
        connect(product.ws_url, max_queue=None, proxy=None) as socket,
    ):
        listener = Listener(socket)
        listening = asyncio.create_task(listener.listen())
        for on in (True, False) * options.rounds:
            filling = asyncio.create_task(background(http, listener, options.background)) if on else None
            await asyncio.sleep(3.0 if on else 0.5)  # until the engine has found its batch
            for seed in range(options.jobs // options.rounds):
                began = time.perf_counter()
                job_id = await submit(http, lane=Lane.NORMAL, steps=options.steps, seed=seed)
                ended = await listener.end_of(job_id)
                mine.add(job_id)
                waits[on].append(listener.first.get(job_id, ended) - began)
                whole[on].append(ended - began)
                await asyncio.sleep(rng.uniform(0.05, 0.3))
            if filling is not None:
                filling.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await filling
        listening.cancel()
    # A displaced job's steps are further apart: those that nobody displaced are most.
    turns = [seconds for job_id, each in listener.turns.items() if job_id not in mine for seconds in each]
    tell_users(waits, whole, turns)


def tell_users(waits: dict[bool, list[float]], whole: dict[bool, list[float]], turns: list[float]) -> None:
    """Two lines."""
    turn = statistics.median(turns)
    p95 = {on: percentile(values, 0.95) for on, values in waits.items()}
    p50 = {on: percentile(values, 0.5) for on, values in waits.items()}
    tell(
        "submit → first step of an interactive job, added by background jobs",
        count=len(waits[True]),
        added_p50_ms=ms(p50[True] - p50[False]),
        added_p95_ms=ms(p95[True] - p95[False]),
        without_p50_ms=ms(p50[False]),
        without_p95_ms=ms(p95[False]),
        background_step_p50_ms=ms(turn),
        target="p95: one step + 20 ms",
        met=p95[True] - p95[False] <= turn + BEYOND_STEP_S,
    )
    ratios = {
        name: (percentile(whole[True], share) - turn - BEYOND_STEP_S) / percentile(whole[False], share)
        for name, share in (("p50", 0.5), ("p95", 0.95))
    }
    tell(
        "submit → complete of an interactive job, with background jobs beyond that step against without",
        count=len(whole[True]),
        with_p50_ms=ms(percentile(whole[True], 0.5)),
        with_p95_ms=ms(percentile(whole[True], 0.95)),
        without_p50_ms=ms(percentile(whole[False], 0.5)),
        without_p95_ms=ms(percentile(whole[False], 0.95)),
        ratio_p50=round(ratios["p50"], 3),
        ratio_p95=round(ratios["p95"], 3),
        target=1 + MOST_SLOWER,
        met=max(ratios.values()) <= 1 + MOST_SLOWER,
    )


async def unwatched() -> None:
    """One line."""
    import torch

    from reverie_inference.engine.engine import StepEngine
    from reverie_inference.engine.events import Stepped
    from reverie_inference.models.checkpoint import load_pipeline
    from reverie_inference.models.shelf import Shelf
    from reverie_inference.worker.assignment import EngineAssignment
    from reverie_inference.worker.previews import Previews
    from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType

    torch.set_num_threads(1)
    engine = StepEngine(Shelf.holding(load_pipeline(str(BUILTIN_MODEL), device="cpu", offline=True)))
    params = GenerateParams(prompt=PROMPT, size="64x64", num_inference_steps=BACKGROUND_STEPS, seed=1)
    engine.admit("benchmark", engine.resolve(params, fallback_seed=0))
    steps: list[float] = []
    while engine.jobs:
        began = time.process_time()
        if any(isinstance(event, Stepped) for event in engine.step()):
            steps.append(time.process_time() - began)
    job = Job(
        id="benchmark",
        owner="somebody",
        type=JobType.GENERATE,
        state=JobState.RUNNING,
        priority=Lane.NORMAL,
        position=0.0,
        params=params,
        created_at=0.0,
        enqueued_at=0.0,
        updated_at=0.0,
    )
    asked: list[str] = []
    previews = Previews(lambda run_id: bool(asked.append(run_id)), most_per_second=4.0)
    assignment, event = EngineAssignment(job, "worker"), Stepped("benchmark", 1, BACKGROUND_STEPS, 0.0)
    calls = 20_000
    began = time.process_time()
    for _ in range(calls):
        previews.on_step(assignment, event, now=time.monotonic())
    share = (time.process_time() - began) / calls / min(steps)
    tell(
        "previews while nobody watches, as a part of a step",
        share=round(share, 6),
        step_ms=ms(min(steps)),
        asked=len(asked),
        target=UNWATCHED,
        met=share <= UNWATCHED and not asked,
    )


class InModel:
    """Processor time of the engine's thread, and how much of it passed in the networks and schedulers."""

    def __init__(self, model: Any) -> None:
        self.spent = 0.0
        self._entered = 0.0
        pipeline = model.pipeline
        for module in (pipeline.unet, pipeline.text_encoder):
            module.register_forward_pre_hook(lambda *_: self._enter())
            module.register_forward_hook(lambda *_: self._leave())
        decode = pipeline.vae.decode

        def timed(*given: Any, **named: Any) -> Any:
            self._enter()
            try:
                return decode(*given, **named)
            finally:
                self._leave()

        pipeline.vae.decode = timed

    def _enter(self) -> None:
        self._entered = time.thread_time()

    def _leave(self) -> None:
        self.spent += time.thread_time() - self._entered


def filling(options: argparse.Namespace) -> None:
    """One line; on one thread, so that the thread's time is all there is."""
    import torch

    from reverie_inference.engine.engine import StepEngine
    from reverie_inference.engine.events import Failed, Finished
    from reverie_inference.models.checkpoint import load_pipeline
    from reverie_inference.models.shelf import Shelf
    from reverie_inference.worker.engine_thread import EngineThread, Report
    from reverie_inference.worker.loading import EngineOffer, quiet_libraries
    from reverie_protocol.jobs import GenerateParams

    quiet_libraries()
    torch.set_num_threads(1)
    model = load_pipeline(str(BUILTIN_MODEL), device="cpu", offline=True)
    model.pipeline.set_progress_bar_config(disable=True)
    inside = InModel(model)
    enough, done = threading.Event(), 0
    marks: list[tuple[float, float]] = []
    thread: EngineThread

    def next_job(number: int) -> None:
        params = GenerateParams(
            prompt=f"{PROMPT} {number}", size="64x64", num_inference_steps=options.steps, seed=number
        )
        thread.admit(str(number), params, fallback_seed=0, lane=Lane.BACKGROUND)

    def report(event: Report) -> None:
        nonlocal done
        if isinstance(event, Failed):
            raise SystemExit(event.message)
        if isinstance(event, Finished):
            done += 1
            if done in (options.background, options.background * 6):
                marks.append((time.thread_time(), inside.spent))
            if done >= options.background * 6:
                enough.set()
            else:
                next_job(done + options.background)

    engine = StepEngine(Shelf.holding(model), checkpoint_steps=10)
    thread = EngineThread(lambda: (engine, EngineOffer(engine, model.device)), report)
    thread.start()
    for number in range(options.background):
        next_job(number)
    enough.wait()
    thread.stop()
    thread.join(30)
    (total, within), (total_after, within_after) = marks
    share = (within_after - within) / (total_after - total)
    tell(
        "share of the engine thread's time in model code, filled by background jobs",
        share=round(share, 3),
        jobs=options.background * 5,
        target=UTILISED,
        met=share >= UTILISED,
    )


def ms(seconds: float) -> float:
    """Milliseconds."""
    return round(seconds * 1e3, 1)


def tell(figure: str, **values: Any) -> None:
    """Print one figure."""
    print(
        json.dumps({"figure": figure, **values, "load": round(os.getloadavg()[0], 1)}, ensure_ascii=False),
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--background", type=int, default=8)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--only", choices=("users", "filling", "previews"))
    options = parser.parse_args()
    if options.only in (None, "filling"):
        filling(options)
    if options.only in (None, "previews"):
        asyncio.run(unwatched())
    if options.only in (None, "users"):
        with running_product() as product:
            asyncio.run(users(product, options))


if __name__ == "__main__":
    main()
