"""Measures the shipped models: ``python -m reverie_models.evaluate``.

Prints a table of bars and writes the same figures as JSON beside a contact sheet.
"""

import argparse
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from reverie_inference.upscalers.library import load_upscaler
from reverie_inference.upscalers.network import Upscaler
from reverie_models import generator, scorer, super_resolution
from reverie_models.captions import LANDSCAPE_WORDS, describe
from reverie_models.checker import Tally, held_out_prompts, judge
from reverie_models.pictures import paint
from reverie_models.scenes import LANDSCAPES, Scene, draw_landscape, draw_pair, draw_single
from reverie_models.training import pictures_of

BUILTIN = Path(__file__).resolve().parents[2] / "builtin"
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure, the least or most it should be, and its unit."""

    name: str
    value: float
    wanted: float
    unit: str = "%"
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure reaches its bar."""
        return self.value <= self.wanted if self.at_most else self.value >= self.wanted

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        mark = "yes" if self.met else "NO"
        return f"{self.name:54s} {self.value:8.2f} {sign} {self.wanted:6.2f} {self.unit:3s} {mark}"


def pictures_for(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seed: int,
    steps: int,
    guidance: float,
) -> NDArray[np.float32]:
    """Native pictures [N, 64, 64, 3], 0 to 1, of prompts."""
    parts = []
    for start in range(0, len(prompts), 32):
        part = list(prompts[start : start + 32])
        source = torch.Generator().manual_seed(seed + start)
        parts.append(
            pipeline(
                part,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=source,
                output_type="np",
            ).images
        )
    return np.concatenate(parts)


def check_ground_truth(count: int) -> Bar:
    """The checker on the data set's own pictures."""
    rng = random.Random("ground truth")
    scenes = [draw(rng) for draw in (draw_single, draw_pair) for _ in range(count)]
    right = [judge(paint(scene), scene).all_right for scene in scenes]
    return Bar("checker on ground truth", 100 * sum(right) / len(right), 100)


def check_generator(pipeline: StableDiffusionPipeline, count: int, steps: int, guidance: float) -> list[Bar]:
    """Held-out prompts against the checker."""
    tallies = {}
    for kind in ("single", "pair"):
        prompts = held_out_prompts(kind, count)
        tally = Tally()
        pictures = pictures_for(pipeline, [text for text, _ in prompts], 7, steps, guidance)
        for picture, (_, scene) in zip(pictures, prompts, strict=True):
            tally.add(picture * 255, scene)
        tallies[kind] = tally
    single, pair = tallies["single"], tallies["pair"]
    return [
        Bar("one shape: background colour", 100 * single.share("background"), 97),
        Bar("one shape: its colour", 100 * single.share("colour"), 95),
        Bar("one shape: its shape", 100 * single.share("shape"), 85),
        Bar("two shapes: all right", 100 * pair.share("all_right"), 50),
    ]


@torch.no_grad()
def check_landscapes(
    pipeline: StableDiffusionPipeline, judge_folder: Path, each: int, steps: int, guidance: float
) -> Bar:
    """How often the scorer, asked for one of six, names the kind that was asked for."""
    model, tokenizer = scorer.load(judge_folder)
    names = [LANDSCAPE_WORDS[kind, ""][0] for kind in LANDSCAPES]
    texts = scorer.embed_texts(model, scorer.tokens_of(tokenizer, names))
    rng = random.Random("landscapes")
    scenes = [draw_landscape(rng, kind) for kind in LANDSCAPES for _ in range(each)]
    prompts = [describe(scene, rng, held_out=True) for scene in scenes]
    pictures = pictures_for(pipeline, prompts, 9, steps, guidance)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    named = (scorer.embed_pictures(model, images) @ texts.T).argmax(dim=1).tolist()
    right = [LANDSCAPES[n] == scene.kind for n, scene in zip(named, scenes, strict=True)]
    return Bar("landscapes: kind named by the scorer", 100 * sum(right) / len(right), 90)


def check_super_resolution(
    pipeline: StableDiffusionPipeline,
    upscalers: Iterable[Upscaler],
    count: int,
    steps: int,
    guidance: float,
) -> list[Bar]:
    """Decibels above bicubic: on clean pictures, on decoded ones, and on the generator's own, reduced before."""
    own = _generated(pipeline, count, steps, guidance)
    bars = []
    for upscaler in upscalers:
        wanted = {2: 2.0, 4: 1.3}[upscaler.scale]
        figures = super_resolution.measure(upscaler, pipeline.vae, count)
        for kind, (mine, base) in figures.items():
            name = f"super-resolution x{upscaler.scale} above bicubic, {kind}"
            bars.append(Bar(name, mine - base, wanted, "dB"))
        size = own.shape[-1]
        low = super_resolution.bicubic(own, size // upscaler.scale)
        mine = super_resolution.psnr(upscaler.upscale(low), own).mean()
        base = super_resolution.psnr(super_resolution.bicubic(low, size), own).mean()
        name = f"super-resolution x{upscaler.scale} above bicubic, generator's own"
        bars.append(Bar(name, float(mine - base), wanted, "dB"))
    return bars


def _generated(pipeline: StableDiffusionPipeline, count: int, steps: int, guidance: float) -> torch.Tensor:
    """Pictures [count, 3, 64, 64] by the generator, 0 to 1, of every kind of scene."""
    rng = random.Random("super-resolution of generated pictures")
    draws = rng.choices((draw_single, draw_pair, draw_landscape), (4, 3, 4), k=count)
    prompts = [describe(draw(rng), rng, held_out=True) for draw in draws]
    pictures = pictures_for(pipeline, prompts, 11, steps, guidance)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float()


def check_scorer(folder: Path, count: int) -> list[Bar]:
    """The right caption against one that is wrong in one thing."""
    model, tokenizer = scorer.load(folder)
    rng = random.Random("scorer bar")
    kinds: dict[str, list[Scene]] = {
        "one shape": [draw_single(rng, held_out=True) for _ in range(count)],
        "two shapes": [draw_pair(rng, held_out=True) for _ in range(count)],
        "landscapes": [draw_landscape(rng) for _ in range(count)],
    }
    shares = {k: scorer.ranking_share(model, tokenizer, v, rng) for k, v in kinds.items()}
    bars = [Bar(f"scorer, one thing wrong: {k}", 100 * v, 95) for k, v in shares.items()]
    return [
        Bar("scorer: right caption above an unrelated one", _unrelated(folder, count), 95),
        *bars,
    ]


@torch.no_grad()
def _unrelated(folder: Path, count: int) -> float:
    model, tokenizer = scorer.load(folder)
    rng = random.Random("unrelated")
    draws = (draw_single, draw_pair, draw_landscape)
    scenes = [rng.choice(draws)(rng) for _ in range(3 * count)]
    captions = [describe(scene, rng) for scene in scenes]
    images = scorer.embed_pictures(model, pictures_of(scenes))
    texts = scorer.embed_texts(model, scorer.tokens_of(tokenizer, captions))
    others = texts.roll(1, dims=0)
    return 100 * float(((images * texts).sum(-1) > (images * others).sum(-1)).float().mean())


def check_speed(pipeline: StableDiffusionPipeline, upscaler: Upscaler, steps: int, guidance: float) -> Bar:
    """Seconds for one default picture of 256x256 on at most two threads, the best of three."""
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, threads))
    taken = []
    for seed in range(3):
        start = time.perf_counter()
        native = pictures_for(pipeline, ["a red circle on a blue background"], seed, steps, guidance)
        upscaler.upscale(torch.from_numpy(native).permute(0, 3, 1, 2).float())
        taken.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return Bar("seconds for a 256x256 picture", min(taken), 2.0, "s", at_most=True)


def contact_sheet(
    pipeline: StableDiffusionPipeline, upscaler: Upscaler, steps: int, guidance: float
) -> Image.Image:
    """Enlarged pictures: two rows of one shape, two of two shapes, one per landscape pair."""
    rng = random.Random("sheet")
    prompts = [text for text, _ in held_out_prompts("single", 16, seed=21)]
    prompts += [text for text, _ in held_out_prompts("pair", 16, seed=22)]
    for kind in LANDSCAPES:
        prompts += [describe(draw_landscape(rng, kind), rng, held_out=True) for _ in range(4)]
    native = pictures_for(pipeline, prompts, 31, steps, guidance)
    large = upscaler.upscale(torch.from_numpy(native).permute(0, 3, 1, 2).float())
    small = torch.nn.functional.interpolate(large, size=(160, 160), mode="area")
    rows = [torch.cat(list(small[i : i + 8]), dim=2) for i in range(0, len(small), 8)]
    pixels = (torch.cat(rows, dim=1).permute(1, 2, 0) * 255).round().byte().numpy()
    return Image.fromarray(pixels)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reverie_models.evaluate", description=__doc__)
    parser.add_argument("--models", type=Path, default=BUILTIN, help="folder of the three models")
    parser.add_argument("--count", type=int, default=200, help="pictures per kind")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: the model's)")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for results")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measures everything and writes `bars.json` and `contact-sheet.png`."""
    arguments = _arguments(words)
    folder = arguments.models
    defaults = json.loads((folder / "text-to-image" / "reverie.json").read_text())
    steps = arguments.steps or defaults["default_steps"]
    guidance = arguments.guidance or defaults["default_guidance"]
    pipeline = generator.load(folder / "text-to-image")
    upscalers = {
        scale: load_upscaler(folder / "super-resolution" / f"x{scale}.safetensors")
        for scale in super_resolution.SCALES
    }
    bars = [check_ground_truth(arguments.count)]
    bars += check_generator(pipeline, arguments.count, steps, guidance)
    bars.append(check_landscapes(pipeline, folder / "scorer", 12, steps, guidance))
    bars += check_super_resolution(pipeline, upscalers.values(), min(60, arguments.count), steps, guidance)
    bars += check_scorer(folder / "scorer", arguments.count)
    bars.append(check_speed(pipeline, upscalers[4], steps, guidance))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    bars.append(Bar("size of everything", size / 1e6, 15, "MB", at_most=True))
    for bar in bars:
        print(bar)
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures = [{**asdict(bar), "met": bar.met} for bar in bars]
    (arguments.out / "bars.json").write_text(json.dumps(figures, indent=2) + "\n")
    contact_sheet(pipeline, upscalers[4], steps, guidance).save(arguments.out / "contact-sheet.png")


if __name__ == "__main__":
    main()
