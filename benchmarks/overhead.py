"""Seconds per image through Reverie against the bare diffusers pipeline, and whether the pixels are equal.

    .venv/bin/python benchmarks/overhead.py [--images 24] [--rounds 3] [--steps 8] [--model PATH] [--size 64x64]

Same model, prompts, seeds, steps and threads.  The bare pipeline runs in a process of its own; rounds of both
alternate, so that a busy neighbour disturbs both alike; the median round counts.
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
from pathlib import Path
from typing import Any

import httpx
import msgspec
from PIL import Image
from product import BUILTIN_MODEL, Product, running_product

PROMPTS = ("a red circle on a blue background", "a green star on a white background", "the sea at sunset")
CLIENTS = (1, 4)
LIMIT_SHARE, LIMIT_S = 0.05, 0.015
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


def bare_pipeline(options: argparse.Namespace) -> None:
    """Child process: one line in (a list of requests), one line out (seconds and fingerprints)."""
    import torch
    from diffusers import AutoPipelineForText2Image, DDIMScheduler

    torch.set_num_threads(options.threads)
    pipeline = AutoPipelineForText2Image.from_pretrained(
        options.model, torch_dtype=torch.float32, local_files_only=True, safety_checker=None
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    for line in sys.stdin:
        images = []
        started = time.perf_counter()
        for request in json.loads(line):
            width, height = map(int, request["size"].split("x"))
            result = pipeline(
                request["prompt"],
                width=width,
                height=height,
                num_inference_steps=request["num_inference_steps"],
                guidance_scale=request["guidance_scale"],
                generator=torch.Generator("cpu").manual_seed(request["seed"]),
            )
            images.append(result.images[0])
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "pixels": [digest(image) for image in images]}), flush=True)


async def through_reverie(url: str, asked: list[dict[str, Any]], clients: int) -> tuple[float, list[str]]:
    """Seconds for all of them, by `clients` clients that each wait for their picture, and the fingerprints."""
    todo = list(enumerate(asked))
    bodies: dict[int, bytes] = {}

    async def client() -> None:
        async with httpx.AsyncClient(timeout=120) as http:
            while todo:
                index, request = todo.pop(0)
                answer = await http.post(f"{url}/generate", json=request)
                answer.raise_for_status()
                bodies[index] = answer.content

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    seconds = time.perf_counter() - started
    return seconds, [digest(Image.open(io.BytesIO(bodies[index]))) for index in range(len(asked))]


def measure(
    product: Product, bare: subprocess.Popen[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row per number of clients."""
    asked = requests(options.images, options)
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare_stdin, bare_stdout = bare.stdin, bare.stdout

    def run_bare() -> dict[str, Any]:
        bare_stdin.write(json.dumps(asked) + "\n")
        bare_stdin.flush()
        return json.loads(bare_stdout.readline())  # type: ignore[no-any-return]  # our own child's line

    run_bare()
    asyncio.run(through_reverie(product.url, asked, 1))
    rows = []
    for clients in CLIENTS:
        bare_seconds, our_seconds, equal = [], [], True
        for _ in range(options.rounds):
            plain = run_bare()
            seconds, pixels = asyncio.run(through_reverie(product.url, asked, clients))
            bare_seconds.append(plain["seconds"] / options.images)
            our_seconds.append(seconds / options.images)
            equal = equal and pixels == plain["pixels"]
        plain_s, ours_s = statistics.median(bare_seconds), statistics.median(our_seconds)
        added = ours_s - plain_s
        rows.append(
            {
                "clients": clients,
                "bare_ms": round(plain_s * 1e3, 1),
                "reverie_ms": round(ours_s * 1e3, 1),
                "ratio": round(ours_s / plain_s, 3),
                "added_ms": round(added * 1e3, 1),
                "within_target": added <= max(LIMIT_SHARE * plain_s, LIMIT_S),
                "pixels_equal": equal,
            }
        )
    return rows


def main() -> None:
    """Run both sides and print one JSON line per number of clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--model", type=Path, default=BUILTIN_MODEL)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare_pipeline(options)
        return
    with running_product(model=options.model) as product:
        command = [sys.executable, __file__, *sys.argv[1:], "--bare"]
        bare = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | PASSIVE_WAITS
        )
        try:
            for row in measure(product, bare, options):
                print(msgspec.json.encode(row).decode(), flush=True)
        finally:
            bare.kill()


if __name__ == "__main__":
    main()
