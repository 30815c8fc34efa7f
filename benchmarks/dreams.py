"""How much better a search is than luck: each strategy against `random`, pruning against plain best-of-N.

All get the same number of denoising steps per prompt, on the built-in model, one draft at a time; only the search
differs, which is the very code of the dreams service.  `--guide` measures on the running product how long a guide
takes to show.  One JSON line per figure, then a table.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from reverie_dreams.scoring.panel import Bench, judge, open_benches
from reverie_dreams.search.search import Search
from reverie_dreams.session.pruning import Pruning
from reverie_dreams.strategies.library import load_strategies
from reverie_protocol.dream_log import Pruned, Scored, Started
from reverie_protocol.dreams import DreamPlan, DreamStrategy
from reverie_protocol.jobs import GenerateParams

ROOT = Path(__file__).resolve().parents[1]
STEPS, HALF, SCALE = 6, 3, 2.5
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "white", "black", "cyan")
SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "ring", "cross")
PLACES = ("to the left of", "to the right of", "above", "below")


def prompts(count: int, seed: int) -> list[str]:
    """Two shapes in three colours: what the built-in model gets right two times of three."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        one, other, ground = rng.sample(COLOURS, 3)
        first, second = rng.choice(SHAPES), rng.choice(SHAPES)
        made.append(f"a {one} {first} {rng.choice(PLACES)} a {other} {second} on a {ground} background")
    return made


class Model:
    """The built-in pipeline, and what it believes half-way."""

    def __init__(self) -> None:
        from diffusers import AutoPipelineForText2Image

        torch.set_num_threads(1)
        place = ROOT / "models" / "builtin" / "text-to-image"
        loaded: Any = AutoPipelineForText2Image.from_pretrained(
            place, local_files_only=True, torch_dtype=torch.float32
        )
        loaded.set_progress_bar_config(disable=True)
        self.pipeline = loaded
        self._step = loaded.scheduler.step
        self._believed: list[torch.Tensor] = []
        loaded.scheduler.step = self._noting
        self.channels, self.cells = loaded.unet.config.in_channels, loaded.unet.config.sample_size

    def _noting(self, *arguments: Any, **options: Any) -> Any:
        result = self._step(*arguments, **{**options, "return_dict": True})
        self._believed.append(result.pred_original_sample)
        return (result.prev_sample,)

    def draw(
        self, params: GenerateParams, hopeless: Callable[[bytes], bool] | None
    ) -> tuple[bytes | None, int]:
        """A PNG and the steps it took; None where it was given up half-way."""
        self._believed = []
        given_up = False

        def on_step(pipeline: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal given_up
            if step + 1 == HALF and hopeless is not None:
                given_up = hopeless(self._seen(self._believed[-1]))
                pipeline._interrupt = given_up
            return tensors

        images = self.pipeline(
            params.prompt,
            latents=self._noise(params),
            num_inference_steps=STEPS,
            guidance_scale=params.guidance_scale or SCALE,
            height=64,
            width=64,
            callback_on_step_end=on_step,
        ).images
        return (None, HALF) if given_up else (_png(images[0]), STEPS)

    def _noise(self, params: GenerateParams) -> torch.Tensor:
        from reverie_inference.engine.first_noise import slerp

        shape = (1, self.channels, self.cells, self.cells)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(params.seed or 0))
        for move in params.variations:
            other = torch.randn(shape, generator=torch.Generator().manual_seed(move.seed))
            noise = slerp(noise, other, move.weight)
        return noise

    def _seen(self, latents: torch.Tensor) -> bytes:
        with torch.inference_mode():
            decoded = self.pipeline.vae.decode(latents / self.pipeline.vae.config.scaling_factor).sample
        return _png(self.pipeline.image_processor.postprocess(decoded)[0])


def dream(
    model: Model, benches: list[Bench], prompt: str, strategy: str, *, prune: bool, budget: int, seed: int
) -> dict[str, float]:
    """One session with so many steps; the mean score of its ten best, calibrated and raw."""
    strategies, pruning, search = load_strategies(), Pruning(), Search()
    plan = DreamPlan(prompt=prompt, strategy=strategy, seed=seed, similarity_threshold=0.0, temperature=0.4)
    params = GenerateParams(prompt=prompt, size="64x64", num_inference_steps=STEPS, guidance_scale=SCALE)
    # No modifiers: the built-in model knows none of these words.
    search.apply(Started(plan=plan, params=params, weights={"builtin": 1.0}), at=0.0)
    spent, raws, tried = 0, [], 0
    while spent + STEPS <= budget:
        event = search.propose(strategies[strategy].propose, job=f"j{search.next_id}", strategy=strategy)
        search.apply(event, at=0.0)
        estimates: list[float] = []

        def hopeless(picture: bytes, estimates: list[float] = estimates) -> bool:
            [seen] = judge(benches, [picture], prompt)
            estimates.append(seen.scores["builtin"] if seen else 0.0)
            return pruning.hopeless(estimates[-1])

        picture, steps = model.draw(event.params, hopeless if prune else None)
        spent, tried = spent + steps, tried + 1
        if picture is None:
            search.apply(Pruned(id=event.id, estimate=estimates[-1], progress=0.5), at=0.0)
            continue
        raws += benches[0].scorer.raw([Image.open(io.BytesIO(picture))], prompt)
        [seen] = judge(benches, [picture], prompt)
        if seen is None:
            continue
        scored = Scored(id=event.id, scores=seen.scores, hash=seen.hash, signature=seen.signature)
        for decided in search.judge(scored):
            search.apply(decided, at=0.0)
    kept = [search.score(candidate) for candidate in search.kept[:10]]
    best = sorted(raws, reverse=True)[:10]
    return {"score": statistics.fmean(kept), "raw": statistics.fmean(best), "tried": tried, "steps": spent}


def compare(count: int, budget: int, seed: int) -> None:
    """All methods over all prompts."""
    model, benches = Model(), open_benches({"builtin": ""})
    methods = [
        ("random", False),
        ("random", True),
        *((s.value, False) for s in DreamStrategy if s != "random"),
    ]
    found: dict[str, list[dict[str, float]]] = {_name(*method): [] for method in methods}
    for number, prompt in enumerate(prompts(count, seed)):
        print(f"prompt {number + 1} of {count}: {prompt}", file=sys.stderr, flush=True)
        for strategy, prune in methods:
            result = dream(
                model, benches, prompt, strategy, prune=prune, budget=budget, seed=seed * 1000 + number
            )
            found[_name(strategy, prune)].append(result)
    base = found["random"]
    rows = []
    for method, results in found.items():
        wins = sum(one["raw"] > other["raw"] for one, other in zip(results, base, strict=True))
        row = {
            "figure": "best of top 10",
            "method": method,
            "score": round(statistics.fmean(one["score"] for one in results), 4),
            "cosine": round(statistics.fmean(one["raw"] for one in results), 4),
            "tried": round(statistics.fmean(one["tried"] for one in results), 1),
            "better_than_random": wins,
            "prompts": len(results),
            "steps_each": budget,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(
        "\n| method | mean of the 10 best | cosine | drafts tried | better than random |\n|---|---|---|---|---|"
    )
    for row in rows:
        better = "–" if row["method"] == "random" else f"{row['better_than_random']} of {row['prompts']}"
        print(f"| {row['method']} | {row['score']} | {row['cosine']} | {row['tried']} | {better} |")


async def guide(url: str, count: int) -> None:
    """Guides on a product that runs, until a draft that shows one is told."""
    import websockets

    colours = [f"a {colour} star on a white background" for colour in COLOURS[:6]]
    waits = []
    async with websockets.connect(f"{url.replace('http', 'ws')}/v1/ws", max_queue=None) as socket:

        async def until(
            kind: str, condition: Callable[[dict[str, Any]], bool] = lambda _: True
        ) -> dict[str, Any]:
            while True:
                frame = await socket.recv()
                message = json.loads(frame) if isinstance(frame, str) else {"type": ""}
                if message["type"] == "error":
                    raise RuntimeError(message["message"])
                if message["type"] == kind and condition(message):
                    return message

        start = {"type": "dream:start", "prompt": "a red circle on a blue background", "duration": 3600}
        await socket.send(json.dumps({**start, "similarity_threshold": 0.0}))
        await until("dream:candidate")
        for number in range(count):
            prompt = f"{colours[number % len(colours)]}, number {number}"
            begun = time.monotonic()
            await socket.send(json.dumps({"type": "dream:guide", "params": {"prompt": prompt}}))
            await until(
                "dream:candidate", lambda message, prompt=prompt: message["prompt"].startswith(prompt)
            )
            waits.append(time.monotonic() - begun)
        for _ in range(2):
            await socket.send(json.dumps({"type": "dream:stop"}))
            await until("dream:stopped")
    ranked = sorted(waits)
    p95 = ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))]
    row = {
        "figure": "guide to first draft",
        "p50_s": round(ranked[len(ranked) // 2], 3),
        "p95_s": round(p95, 3),
    }
    print(json.dumps({**row, "guides": count}))


def _name(strategy: str, prune: bool) -> str:
    return f"{strategy}, pruned" if prune else strategy


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300, help="denoising steps per prompt and method")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--guide", metavar="URL", help="measure guides on the product at this address instead"
    )
    parser.add_argument("--guides", type=int, default=40)
    given = parser.parse_args()
    if given.guide:
        asyncio.run(guide(given.guide, given.guides))
    else:
        compare(given.prompts, given.steps, given.seed)


if __name__ == "__main__":
    main()
