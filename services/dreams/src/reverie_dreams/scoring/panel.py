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
from reverie_protocol.errors import ErrorCode, ReverieError

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
    """Loads its scorers when they are first needed, since that takes seconds and much memory.

    `judge` may be called from many tasks, and does one batch at a time.
    """

    def __init__(self, chosen: Mapping[str, str], calibrations: Sequence[Path] = ()) -> None:
        self._chosen = dict(chosen)
        self._calibrations = list(calibrations)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="scorers")
        self._benches: list[Bench] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scorers."""
        return tuple(self._chosen)

    def warm(self) -> None:
        """Begin to load now; what goes wrong is said by `judge`."""
        if self._benches is None:
            self._executor.submit(self._opened)

    async def judge(self, pictures: Sequence[bytes], prompt: str) -> list[Judgement | None]:
        """One judgement for each encoded picture; None for one that cannot be decoded.

        ReverieError `model_load_failed` where a scorer cannot be had.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._judge, list(pictures), prompt
        )

    def close(self) -> None:
        """End the thread; a batch under way is left to end by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _judge(self, pictures: list[bytes], prompt: str) -> list[Judgement | None]:
        try:
            benches = self._opened()
        except ValueError as error:
            raise ReverieError(ErrorCode.MODEL_LOAD_FAILED, str(error)) from error
        return judge(benches, pictures, prompt)

    def _opened(self) -> list[Bench]:
        if self._benches is None:
            self._benches = open_benches(self._chosen, self._calibrations)
        return self._benches


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


def scorer_names() -> list[str]:
    """Names of all scorers that are installed."""
    return sorted(point.name for point in entry_points(group=GROUP))


def require_scorers(chosen: Mapping[str, str]) -> None:
    """ValueError naming the first scorer that is not installed."""
    installed = scorer_names()
    for name in chosen:
        if name not in installed:
            raise ValueError(f"dreams.scorers: there is no scorer {name!r}; there is {', '.join(installed)}")


def open_benches(chosen: Mapping[str, str], calibrations: Sequence[Path] = ()) -> list[Bench]:
    """The scorers of `chosen` (options by name), loaded; ValueError in one sentence for one that cannot be had."""
    factories = {point.name: point for point in entry_points(group=GROUP)}
    require_scorers(chosen)
    benches = []
    for name, options in chosen.items():
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
