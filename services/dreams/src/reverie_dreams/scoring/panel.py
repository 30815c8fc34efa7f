"""All scorers of a service together, in a thread of their own: batches of pictures in, calibrated scores out."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import structlog
from PIL import Image

from reverie_dreams.scoring.calibration import Calibration, linear, recorded
from reverie_dreams.scoring.duplicates import perceptual_hash, small_colours
from reverie_dreams.scoring.port import Factory, Looking, Scorer
from reverie_dreams.search.candidate import pack_signature

GROUP: Final = "reverie.scorers"
#: A picture with more pixels is not looked at.
MAX_PIXELS: Final = 64_000_000
#: Raw figures that a scorer without a recording is taken to lie between: those of CLIP models.
UNCALIBRATED: Final = {"clip": (0.12, 0.38)}

log = structlog.get_logger(__name__)


class Judgement(msgspec.Struct, frozen=True):
    """What scorers say of one picture: calibrated scores by scorer, its hash and signature, its size in pixels."""

    scores: dict[str, float]
    hash: str
    signature: str
    width: int
    height: int


class Bench(msgspec.Struct, frozen=True):
    """One scorer ready to be used."""

    name: str
    scorer: Scorer
    calibration: Calibration


class Panel:
    """Made by `open_panel`; `judge` may be called from many tasks, and does one batch at a time."""

    def __init__(self, benches: Sequence[Bench], executor: ThreadPoolExecutor) -> None:
        self.benches = tuple(benches)
        self._executor = executor

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scorers."""
        return tuple(bench.name for bench in self.benches)

    async def judge(self, pictures: Sequence[bytes], prompt: str) -> list[Judgement | None]:
        """One judgement for each encoded picture; None for one that cannot be decoded."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, judge, self.benches, list(pictures), prompt
        )

    def close(self) -> None:
        """End the thread; a batch under way is left to end by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def judge(benches: Sequence[Bench], pictures: Sequence[bytes], prompt: str) -> list[Judgement | None]:
    """See `Panel.judge`."""
    decoded = [_decoded(picture) for picture in pictures]
    images = [image for image in decoded if image is not None]
    if not images:
        return [None] * len(decoded)
    columns = {bench.name: _scored(bench, images, prompt) for bench in benches}
    looking = next((bench.scorer for bench in benches if isinstance(bench.scorer, Looking)), None)
    looks = looking.looks(images) if looking is not None else [small_colours(image) for image in images]
    judgements = iter(
        Judgement(
            scores={name: column[index] for name, column in columns.items()},
            hash=perceptual_hash(image),
            signature=pack_signature(np.asarray(looks[index])),
            width=image.width,
            height=image.height,
        )
        for index, image in enumerate(images)
    )
    return [None if image is None else next(judgements) for image in decoded]


async def open_panel(chosen: Mapping[str, str], calibrations: Sequence[Path] = ()) -> Panel:
    """The scorers of `chosen` (options by name); ValueError in one sentence for one that cannot be had."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="scorers")
    try:
        benches = await asyncio.get_running_loop().run_in_executor(
            executor, _open, dict(chosen), list(calibrations)
        )
    except BaseException:
        executor.shutdown(wait=False)
        raise
    return Panel(benches, executor)


def scorer_names() -> list[str]:
    """Names of all scorers that are installed."""
    return sorted(point.name for point in entry_points(group=GROUP))


def _open(chosen: dict[str, str], calibrations: list[Path]) -> list[Bench]:
    import torch

    # The machine's cores belong to the workers: a scorer is a guest.
    torch.set_num_threads(1)
    factories = {point.name: point for point in entry_points(group=GROUP)}
    benches = []
    for name, options in chosen.items():
        if name not in factories:
            raise ValueError(
                f"dreams.scorers: there is no scorer {name!r}; there is {', '.join(scorer_names())}"
            )
        factory: Factory = factories[name].load()
        try:
            scorer = factory(options)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"dreams.scorers: {name} cannot be loaded: {str(error).splitlines()[0]}"
            ) from error
        calibration = recorded(name, calibrations)
        if calibration is None:
            log.warning("a scorer has no calibration: its scores mean less", scorer=name)
            calibration = linear(name, *UNCALIBRATED.get(name, (0.0, 1.0)))
        benches.append(Bench(name, scorer, calibration))
    return benches


def _scored(bench: Bench, images: Sequence[Image.Image], prompt: str) -> list[float]:
    return [bench.calibration.score(raw) for raw in bench.scorer.raw(images, prompt)]


def _decoded(picture: bytes) -> Image.Image | None:
    try:
        image = Image.open(io.BytesIO(picture), formats=("PNG", "JPEG", "WEBP"))
        if image.width * image.height > MAX_PIXELS:
            return None
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
