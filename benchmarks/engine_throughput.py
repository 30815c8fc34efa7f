"""Pictures a second with several jobs at once, against the bare diffusers pipeline that makes one after the other;
and what the engine adds where there is only one.

    .venv/bin/python benchmarks/engine_throughput.py [--jobs 8] [--rounds 3] [--steps 10] [--threads N]
                                                     [--shapes builtin,tiny-sdxl] [--sizes 512x512,1024x1024]
                                                     [--no-product]

Same model, prompts, seeds, steps, guidance, precision and threads (all cores, which is what the bare pipeline takes
by itself).  Both run in one child process and take turns; the quickest round of each counts.  `batch 1` is the
engine with one job at a time, `batch N` with all of them admitted at once; before it counts, the engine works until
its batch has the size that it measured to be worth it.  `product` is the built-in model through `POST /generate` by
N clients.  `cpu_ratio` compares the processor's time instead of the clock's: it says something on a busy machine
too.

On CUDA the shapes are those of SD-Turbo, SD 1.5 and SDXL with random weights in fp16, else small ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from overhead import PASSIVE_WAITS, PROMPTS, through_reverie
from shapes import ON_A_CPU, ON_A_GPU, shape

from reverie_testing.product import started

TARGET, MOST_OVERHEAD = 2.5, 0.02
#: Rounds in which the engine finds the size of its batch.
LEARNING = 6


def asked_of(options: argparse.Namespace, size: str | None) -> list[dict[str, Any]]:
    """One request for each job; no prompt is asked twice."""
    return [
        {
            "prompt": f"{PROMPTS[index % len(PROMPTS)]} number {index}",
            "seed": index,
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance,
            **({"size": size} if size else {}),
        }
        for index in range(options.jobs)
    ]


class Sides:
    """The bare pipeline and the engine over one set of weights, in this process."""

    def __init__(self, folder: Path) -> None:
        import torch

        from reverie_inference.engine.engine import StepEngine
        from reverie_inference.models.checkpoint import load_pipeline
        from reverie_inference.models.shelf import Shelf
        from reverie_inference.worker.loading import quiet_libraries

        quiet_libraries()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_pipeline(str(folder), device=self.device, offline=True)
        self.pipeline = model.pipeline
        self.pipeline.set_progress_bar_config(disable=True)
        self.size = model.native_size
        self.engine = StepEngine(Shelf.holding(model))
        self.most_rows = 0
        denoiser = getattr(self.pipeline, "unet", None) or self.pipeline.transformer
        denoiser.register_forward_pre_hook(self._seen, with_kwargs=True)

    def _seen(self, _module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        latents = given[0] if given else named["hidden_states"]
        self.most_rows = max(self.most_rows, latents.shape[0])

    def bare(self, asked: list[dict[str, Any]]) -> None:
        """One after the other."""
        import torch

        for request in asked:
            width, height = map(int, request["size"].split("x"))
            self.pipeline(
                request["prompt"],
                width=width,
                height=height,
                num_inference_steps=request["num_inference_steps"],
                guidance_scale=request["guidance_scale"],
                generator=torch.Generator("cpu").manual_seed(request["seed"]),
            )

    def alone(self, asked: list[dict[str, Any]]) -> None:
        """The engine, one job at a time; it remembers no prompt from the round before."""
        self._forget()
        for index, request in enumerate(asked):
            self._admit(index, request)
            self._work()

    def together(self, asked: list[dict[str, Any]]) -> None:
        """The engine, all jobs at once."""
        self._forget()
        for index, request in enumerate(asked):
            self._admit(index, request)
        self._work()

    def timed(
        self, work: Callable[[list[dict[str, Any]]], None], asked: list[dict[str, Any]]
    ) -> dict[str, float]:
        """Seconds by the clock and of the processor."""
        self.most_rows = 0
        clock, cpu = time.perf_counter(), time.process_time()
        work(asked)
        return {
            "seconds": time.perf_counter() - clock,
            "cpu": time.process_time() - cpu,
            "rows": self.most_rows,
        }

    def _forget(self) -> None:
        from reverie_inference.models.encodings import Encodings

        (model,) = self.engine.shelf.resident
        model.__dict__["encodings"] = Encodings()

    def _admit(self, index: int, request: dict[str, Any]) -> None:
        from reverie_protocol.jobs import GenerateParams

        params = msgspec.convert(request, GenerateParams)
        self.engine.admit(str(index), self.engine.resolve(params, fallback_seed=0))

    def _work(self) -> None:
        from reverie_inference.engine.events import Failed

        while self.engine.jobs:
            for event in self.engine.step():
                if isinstance(event, Failed):
                    raise SystemExit(event.message)


def child(options: argparse.Namespace) -> None:
    """One line out for each size."""
    import torch

    torch.set_num_threads(options.threads)
    sides = Sides(shape(options.child))
    native = f"{sides.size[0]}x{sides.size[1]}"
    sizes = options.sizes.split(",") if sides.device == "cuda" and options.child != "builtin" else [native]
    for size in sizes:
        asked = asked_of(options, size)
        for _ in range(LEARNING):
            sides.together(asked)
        sides.alone(asked)
        sides.bare(asked[:2])
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name in ("bare", "alone", "together"):
                rounds.setdefault(name, []).append(sides.timed(getattr(sides, name), asked))
        best = {
            name: {key: min(each[key] for each in told) for key in ("seconds", "cpu")}
            for name, told in rounds.items()
        }
        print(
            json.dumps(
                {"size": size, "device": sides.device, "rows": rounds["together"][-1]["rows"], **best}
            ),
            flush=True,
        )


def tell(told: dict[str, Any], name: str, options: argparse.Namespace) -> None:
    """Two lines of a child's figures."""
    bare, alone, together = told["bare"], told["alone"], told["together"]
    about = {
        "shape": name,
        "size": told["size"],
        "device": told["device"],
        "threads": options.threads,
        "load": round(os.getloadavg()[0], 1),
    }
    each_ms = {"bare_ms": bare["seconds"], "engine_ms": alone["seconds"]}
    line(
        "batch 1: time of the engine against the bare pipeline",
        {key: round(value * 1e3 / options.jobs, 1) for key, value in each_ms.items()},
        ratio=round(alone["seconds"] / bare["seconds"], 3),
        cpu_ratio=round(alone["cpu"] / bare["cpu"], 3),
        target=1 + MOST_OVERHEAD,
        met=alone["seconds"] <= (1 + MOST_OVERHEAD) * bare["seconds"],
        **about,
    )
    line(
        f"batch {options.jobs}: pictures a second of the engine against the bare pipeline",
        {
            "bare": round(options.jobs / bare["seconds"], 2),
            "engine": round(options.jobs / together["seconds"], 2),
        },
        ratio=round(bare["seconds"] / together["seconds"], 2),
        cpu_ratio=round(bare["cpu"] / together["cpu"], 2),
        rows=told["rows"],
        **(
            {"target": TARGET, "met": bare["seconds"] >= TARGET * together["seconds"]}
            if name == "builtin"
            else {}
        ),
        **about,
    )


def line(figure: str, values: dict[str, Any], **more: Any) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, **values, **more}), flush=True)


def through_product(bare_seconds: float, size: str, options: argparse.Namespace) -> None:
    """The built-in model by as many clients as there are jobs."""
    environment = {"REVERIE_INFERENCE__THREADS": str(options.threads)}
    os.environ.update(environment)
    with (
        tempfile.TemporaryDirectory(prefix="reverie-benchmark-") as folder,
        started(Path(folder), "--model", str(shape("builtin"))) as product,
    ):
        asked = [request | {"scheduler": "DDIM"} for request in asked_of(options, size)]
        worker = product.processes()["reverie_inference"]
        for _ in range(LEARNING):
            asyncio.run(through_reverie(product, "http", asked, options.jobs))
        taken, cpu = [], []
        for _ in range(options.rounds):
            before = sum(worker.cpu_times()[:2])
            taken.append(asyncio.run(through_reverie(product, "http", asked, options.jobs))[0])
            cpu.append(sum(worker.cpu_times()[:2]) - before)
    best = min(taken)
    line(
        f"product: pictures a second of {options.jobs} clients against the bare pipeline",
        {"bare": round(options.jobs / bare_seconds, 2), "reverie": round(options.jobs / best, 2)},
        ratio=round(bare_seconds / best, 2),
        worker_cpu_s=round(min(cpu), 3),
        target=TARGET,
        met=bare_seconds >= TARGET * best,
        shape="builtin",
        threads=options.threads,
        load=round(os.getloadavg()[0], 1),
    )


def main() -> None:
    """Run each shape in a child of its own, then the product."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shapes", default="", help="default: what this machine's device can carry")
    parser.add_argument(
        "--sizes", default="512x512,1024x1024", help="of the shapes on CUDA; else their native one"
    )
    parser.add_argument("--no-product", action="store_true")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    import torch

    names = (
        options.shapes.split(",") if options.shapes else ON_A_GPU if torch.cuda.is_available() else ON_A_CPU
    )
    bare: dict[str, Any] = {}
    for name in names:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | PASSIVE_WAITS
        )
        for told in map(json.loads, done.stdout.splitlines()):
            tell(told, name, options)
            bare[name] = told
    if "builtin" in bare and not options.no_product:
        through_product(bare["builtin"]["bare"]["seconds"], bare["builtin"]["size"], options)


if __name__ == "__main__":
    main()
