"""Steps that are done twice when a worker is killed with -9 at a random step of 50, and what checkpoints cost.

    .venv/bin/python benchmarks/checkpoints.py [--kills 10] [--interval 10] [--seed 6] [--only kills|cost]

`kills`: the product as it is, one job at a time; its worker is killed once the job has told a random step, and the
launcher starts another.  Steps done twice are those told before the kill from where the next attempt went on; the
picture is compared with that of a job with the same seed which nobody disturbed.  The baseline is the same without
checkpoints, where every step is done twice.

`cost`: seconds of 50 steps of the engine with a checkpoint every `interval` steps, against none, in one process;
rounds alternate, the quickest counts.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from PIL import Image
from product import BUILTIN_MODEL
from websockets.asyncio.client import connect

from reverie_testing.product import Product, started

STEPS: Final = 50
REQUEST: Final = {
    "jobType": "generate",
    "prompt": "a red circle on a blue background",
    "size": "64x64",
    "num_inference_steps": STEPS,
    "scheduler": "DPM++ 2M",
}


class Told:
    """Steps of one job as they were told, by attempt."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.steps: dict[int, list[int]] = {}
        self.output = ""

    def hear(self, raw: str | bytes) -> None:
        """One message."""
        told = json.loads(raw)
        if told.get("jobId") != self.job_id:
            return
        if told["type"] == "job:progress" and told["step"]:
            self.steps.setdefault(told["attempt"], []).append(told["step"])
        elif told["type"] == "job:complete":
            self.output = told["outputs"][0]["url"]
        elif told["type"] == "job:error":
            raise SystemExit(f"the job failed: {told}")


async def one_kill(product: Product, *, seed: int, kill_at: int) -> dict[str, Any]:
    """Kill the worker at a step (0 for never): the steps told before and from where it went on, and the picture."""
    async with (
        httpx.AsyncClient(base_url=product.url, timeout=120, trust_env=False) as http,
        connect(product.ws_url, max_queue=None, proxy=None) as socket,
    ):
        answer = await http.post("/v1/jobs", json={**REQUEST, "seed": seed})
        told = Told(str(answer.raise_for_status().json()["jobId"]))
        killed_at = 0
        async for raw in socket:
            told.hear(raw)
            reached = max(told.steps.get(1, [0]))
            if kill_at and not killed_at and reached >= kill_at:
                product.kill("reverie_inference")
                killed_at = reached
            if told.output:
                break
        picture = (await http.get(told.output)).raise_for_status().content
    last = max(told.steps.get(1, [0]))
    went_on_at = min(told.steps[2]) - 1 if 2 in told.steps else last
    pixels = hashlib.sha256(Image.open(io.BytesIO(picture)).convert("RGB").tobytes()).hexdigest()
    return {"reached": last, "went_on_at": went_on_at, "twice": max(0, last - went_on_at), "pixels": pixels}


def kills(options: argparse.Namespace, interval: int, rng: random.Random) -> list[dict[str, Any]]:
    """Kill so often, each time at another step; one line."""
    os.environ["REVERIE_INFERENCE__CHECKPOINT_STEPS"] = str(interval)
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="reverie-benchmark-") as folder,
        started(Path(folder), "--model", str(BUILTIN_MODEL)) as product,
    ):
        whole = asyncio.run(one_kill(product, seed=1, kill_at=0))
        for _ in range(options.kills):
            row = asyncio.run(one_kill(product, seed=1, kill_at=rng.randint(1, STEPS - 2)))
            rows.append(row | {"same": row["pixels"] == whole["pixels"]})
    return rows


def tell_kills(options: argparse.Namespace) -> None:
    """With checkpoints, and without."""
    rng = random.Random(options.seed)
    rows = kills(options, options.interval, rng)
    bare = kills(options, 0, random.Random(options.seed)) if options.bare else []
    twice = [row["twice"] for row in rows]
    line(
        "steps told before kill -9 that were done again",
        kills=len(rows),
        reached=[row["reached"] for row in rows],
        most=max(twice),
        mean=round(sum(twice) / len(twice), 1),
        **({"mean_without_checkpoints": sum(row["twice"] for row in bare) / len(bare)} if bare else {}),
        pixels_equal=all(row["same"] for row in rows),
        target=options.interval,
        met=max(twice) <= options.interval and all(row["same"] for row in rows),
    )


def cost(options: argparse.Namespace) -> None:
    """What they take of the engine's time; writing them is the event loop's."""
    import torch

    from reverie_inference.engine.engine import StepEngine
    from reverie_inference.engine.events import Checkpointed
    from reverie_inference.models.checkpoint import load_pipeline
    from reverie_inference.models.shelf import Shelf
    from reverie_protocol.jobs import GenerateParams

    torch.set_num_threads(1)
    shelf = Shelf.holding(load_pipeline(str(BUILTIN_MODEL), device="cpu", offline=True))
    engines = {every: StepEngine(shelf, checkpoint_steps=every) for every in (options.interval, 0)}
    params = {key: value for key, value in REQUEST.items() if key != "jobType"} | {"seed": 1}
    taken: dict[int, list[float]] = {every: [] for every in engines}
    sizes: list[int] = []
    for _ in range(options.rounds):
        for every, engine in engines.items():
            began = time.process_time()
            request = engine.resolve(msgspec.convert(params, GenerateParams), fallback_seed=0)
            engine.admit("benchmark", request)
            while engine.jobs:
                sizes += [len(event.content) for event in engine.step() if isinstance(event, Checkpointed)]
            taken[every].append(time.process_time() - began)
    with_them, without = min(taken[options.interval]), min(taken[0])
    line(
        f"processor time of {STEPS} steps with a checkpoint every {options.interval}, against none",
        with_ms=round(with_them * 1e3, 1),
        without_ms=round(without * 1e3, 1),
        ratio=round(with_them / without, 3),
        bytes_each=max(sizes),
    )


def line(figure: str, **values: Any) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, **values, "load": round(os.getloadavg()[0], 1)}), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--interval", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--no-baseline", dest="bare", action="store_false")
    parser.add_argument("--only", choices=("kills", "cost"))
    options = parser.parse_args()
    if options.only != "kills":
        cost(options)
    if options.only != "cost":
        tell_kills(options)


if __name__ == "__main__":
    main()
