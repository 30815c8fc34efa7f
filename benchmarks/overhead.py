"""Seconds per image over `POST /generate` and over the WebSocket, against the bare diffusers pipeline and the bare
step engine, and whether the pixels are equal.

    .venv/bin/python benchmarks/overhead.py [--images 24] [--rounds 3] [--steps 8] [--model PATH] [--size 64x64]
                                            [--paths http,ws]

Same model, prompts, seeds, steps and threads.  Both baselines, one after the other, run in a process of their own:
the diffusers pipeline, and our engine as the worker calls it, from parameters to a picture in memory (no service,
no bus, no file).  Rounds of all alternate, so that a busy neighbour disturbs all alike; the median round counts.
A request over HTTP ends with the picture's bytes; one over the WebSocket, from `job:submit` to `job:complete`, with
its address: the pictures are fetched outside of what is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
from PIL import Image
from product import BUILTIN_MODEL, running_product
from websockets.asyncio.client import ClientConnection, connect

from reverie_testing.product import Product

PROMPTS = ("a red circle on a blue background", "a green star on a white background", "the sea at sunset")
CLIENTS = (1, 4)
LIMIT_SHARE, LIMIT_S = 0.05, 0.015
BASELINES = ("diffusers", "engine")
#: As the worker sets it: threads that spin while they wait slow each other down on a machine that is shared.
PASSIVE_WAITS = {"OMP_WAIT_POLICY": "PASSIVE"}


def requests(count: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The pictures to make, the same for both sides."""
    return [
        {
            "prompt": PROMPTS[index % len(PROMPTS)],
            "size": options.size,
            "seed": index,
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance,
            "scheduler": "DDIM",
        }
        for index in range(count)
    ]


def digest(image: Image.Image) -> str:
    """Fingerprint of the pixels alone, whatever the file around them."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def bare_baselines(options: argparse.Namespace) -> None:
    """Child process: one line in (a baseline and its requests), one line out (seconds and fingerprints)."""
    import torch

    torch.set_num_threads(options.threads)
    make = {"diffusers": bare_pipeline(options), "engine": bare_engine(options)}
    for line in sys.stdin:
        baseline, asked = json.loads(line)
        started = time.perf_counter()
        images = [make[baseline](request) for request in asked]
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "pixels": [digest(image) for image in images]}), flush=True)


def bare_pipeline(options: argparse.Namespace) -> Callable[[dict[str, Any]], Image.Image]:
    """The plain library, without anything of ours."""
    import torch
    from diffusers import AutoPipelineForText2Image, DDIMScheduler

    pipeline = AutoPipelineForText2Image.from_pretrained(
        options.model, torch_dtype=torch.float32, local_files_only=True, safety_checker=None
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def picture(request: dict[str, Any]) -> Image.Image:
        width, height = map(int, request["size"].split("x"))
        image: Image.Image = pipeline(
            request["prompt"],
            width=width,
            height=height,
            num_inference_steps=request["num_inference_steps"],
            guidance_scale=request["guidance_scale"],
            generator=torch.Generator("cpu").manual_seed(request["seed"]),
        ).images[0]
        return image

    return picture


def bare_engine(options: argparse.Namespace) -> Callable[[dict[str, Any]], Image.Image]:
    """Our step engine in this process, called as the worker calls it."""
    from reverie_inference.engine.engine import StepEngine
    from reverie_inference.engine.events import Failed, Finished
    from reverie_inference.models.checkpoint import load_pipeline
    from reverie_inference.models.shelf import Shelf
    from reverie_protocol.jobs import GenerateParams

    engine = StepEngine(
        Shelf.holding(load_pipeline(str(options.model), device="cpu", dtype="fp32", offline=True))
    )

    def picture(request: dict[str, Any]) -> Image.Image:
        params = msgspec.convert(request, GenerateParams)
        engine.admit("benchmark", engine.resolve(params, fallback_seed=0))
        while True:
            for event in engine.step():
                if isinstance(event, Failed):
                    raise SystemExit(event.message)
                if isinstance(event, Finished):
                    return event.picture

    return picture


class OverHttp:
    """A client of `POST /generate`."""

    def __init__(self, product: Product) -> None:
        self._url = product.url
        self._http = httpx.AsyncClient(timeout=120, trust_env=False)

    async def __aenter__(self) -> OverHttp:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, request: dict[str, Any]) -> bytes:
        """The picture."""
        answer = await self._http.post(f"{self._url}/generate", json=request)
        return answer.raise_for_status().content

    async def picture(self, answer: bytes) -> bytes:
        """It is here already."""
        return answer


class OverWebSocket:
    """A client of `/v1/ws`."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> OverWebSocket:
        self._http = await self._stack.enter_async_context(httpx.AsyncClient(timeout=120, trust_env=False))
        # What any of an owner's jobs tells comes to each of his sockets.
        connection = connect(self._product.ws_url, max_queue=None, proxy=None)
        self._socket: ClientConnection = await self._stack.enter_async_context(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, request: dict[str, Any]) -> bytes:
        """The picture's address, of the message that says it is done."""
        await self._socket.send(json.dumps({"type": "job:submit", "jobType": "generate", **request}))
        ack = await self._next("job:ack")
        while (told := await self._next("job:complete", "job:error"))["jobId"] != ack["jobId"]:
            pass
        if told["type"] == "job:error":
            raise SystemExit(f"the job failed: {told}")
        return str(told["outputs"][0]["url"]).encode()

    async def picture(self, answer: bytes) -> bytes:
        """The bytes at the address."""
        fetched = await self._http.get(httpx.URL(self._product.url).join(answer.decode()))
        return fetched.raise_for_status().content

    async def _next(self, *types: str) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(await self._socket.recv())
            if message["type"] in types:
                return message
            if message["type"] == "error":
                raise SystemExit(f"refused: {message}")


Client = OverHttp | OverWebSocket
PATHS: dict[str, Callable[[Product], Client]] = {"http": OverHttp, "ws": OverWebSocket}


async def through_reverie(
    product: Product, path: str, asked: list[dict[str, Any]], clients: int
) -> tuple[float, list[str]]:
    """Seconds for all of them, by `clients` clients that each wait for their picture, and the fingerprints."""
    todo = list(enumerate(asked))
    answers: dict[int, bytes] = {}
    async with AsyncExitStack() as stack:
        present: list[Client] = [
            await stack.enter_async_context(PATHS[path](product)) for _ in range(clients)
        ]

        async def work(client: Client) -> None:
            while todo:
                index, request = todo.pop(0)
                answers[index] = await client.ask(request)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for client in present:
                group.create_task(work(client))
        seconds = time.perf_counter() - started
        bodies = [await present[0].picture(answers[index]) for index in range(len(asked))]
    return seconds, [digest(Image.open(io.BytesIO(body))) for body in bodies]


def measure(
    product: Product, bare: subprocess.Popen[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row per path and number of clients."""
    asked = requests(options.images, options)
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare_stdin, bare_stdout = bare.stdin, bare.stdout

    def run_bare(baseline: str) -> dict[str, Any]:
        bare_stdin.write(json.dumps([baseline, asked]) + "\n")
        bare_stdin.flush()
        return json.loads(bare_stdout.readline())  # type: ignore[no-any-return]  # our own child's line

    paths = options.paths.split(",")
    for baseline in BASELINES:
        run_bare(baseline)
    for path in paths:
        asyncio.run(through_reverie(product, path, asked, 1))
    rows = []
    for clients in CLIENTS:
        taken: dict[str, list[float]] = {}
        equal = dict.fromkeys(paths, True)
        for _ in range(options.rounds):
            plain = {baseline: run_bare(baseline) for baseline in BASELINES}
            for baseline, told in plain.items():
                taken.setdefault(baseline, []).append(told["seconds"] / options.images)
            for path in paths:
                seconds, pixels = asyncio.run(through_reverie(product, path, asked, clients))
                taken.setdefault(path, []).append(seconds / options.images)
                equal[path] &= all(pixels == told["pixels"] for told in plain.values())
        medians = {name: statistics.median(values) for name, values in taken.items()}
        rows += [row(path, clients, medians, equal=equal[path]) for path in paths]
    return rows


def row(path: str, clients: int, seconds: dict[str, float], *, equal: bool) -> dict[str, Any]:
    """One line of the result."""
    bare_s, engine_s, ours_s = seconds["diffusers"], seconds["engine"], seconds[path]
    return {
        "path": path,
        "clients": clients,
        "bare_ms": round(bare_s * 1e3, 1),
        "engine_ms": round(engine_s * 1e3, 1),
        "reverie_ms": round(ours_s * 1e3, 1),
        "ratio": round(ours_s / bare_s, 3),
        "added_ms": round((ours_s - bare_s) * 1e3, 1),
        "ratio_to_engine": round(ours_s / engine_s, 3),
        "added_to_engine_ms": round((ours_s - engine_s) * 1e3, 1),
        "within_target": ours_s - bare_s <= max(LIMIT_SHARE * bare_s, LIMIT_S),
        "pixels_equal": equal,
    }


def main() -> None:
    """Run all sides and print one JSON line per path and number of clients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--model", type=Path, default=BUILTIN_MODEL)
    parser.add_argument("--paths", default=",".join(PATHS), help="http, ws or both")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare_baselines(options)
        return
    with running_product(model=options.model) as product:
        command = [sys.executable, __file__, *sys.argv[1:], "--bare"]
        bare = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | PASSIVE_WAITS
        )
        try:
            for line in measure(product, bare, options):
                print(msgspec.json.encode(line).decode(), flush=True)
        finally:
            bare.kill()


if __name__ == "__main__":
    main()
