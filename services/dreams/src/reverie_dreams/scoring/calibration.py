"""From a scorer's own figures to 0..1: the part of a reference set that is no better.

A score of 0.7 then means the same for each scorer: as good as the best 30 % of the reference set.  The sets of
our scorers are drafts of the built-in model, each judged by the prompt it was made for and by three others.
`python -m reverie_dreams.calibrate` records them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

#: Quantiles that a recording holds.
POINTS: Final = 101


class Calibration(msgspec.Struct, frozen=True):
    """A recorded reference set of one scorer: its quantiles from 0 to 1 in equal steps, and what it was."""

    scorer: str
    quantiles: tuple[float, ...]
    reference: str = ""
    count: int = 0

    def score(self, raw: float) -> float:
        """The part of the reference set below `raw`; a tail beyond it leaves a little room, so that order stays."""
        points = self.quantiles
        if not np.isfinite(raw):
            return 0.0
        last = len(points) - 1
        if raw <= points[0]:
            return 0.0
        if raw >= points[-1]:
            return 1.0
        low, high = bisect_left(points, raw), bisect_right(points, raw)
        if low != high:  # several quantiles are just this: its middle
            return (low + high - 1) / 2 / last
        left, right = points[low - 1], points[low]
        return (low - 1 + (raw - left) / (right - left)) / last


def calibrated(scorer: str, raws: Iterable[float], *, reference: str) -> Calibration:
    """The recording of a reference set; ValueError for fewer than 20 figures."""
    figures = np.asarray([raw for raw in raws if np.isfinite(raw)], float)
    if figures.size < 20:
        raise ValueError("a reference set needs at least 20 pictures")
    quantiles = np.quantile(figures, np.linspace(0, 1, POINTS))
    return Calibration(scorer, tuple(float(q) for q in quantiles), reference, int(figures.size))


def linear(scorer: str, low: float, high: float) -> Calibration:
    """For a scorer without a recording: a straight line."""
    return Calibration(scorer, tuple(np.linspace(low, high, POINTS).tolist()), "none recorded")


def recorded(scorer: str, folders: Sequence[Path] = ()) -> Calibration | None:
    """The recording `<scorer>.json` of the first folder that has one, else ours; ValueError if it is none."""
    own = files("reverie_dreams").joinpath("calibration").joinpath(f"{scorer}.json")
    for place in (*(folder / f"{scorer}.json" for folder in folders), own):
        if not place.is_file():
            continue
        try:
            found = msgspec.json.decode(place.read_bytes(), type=Calibration)
        except (OSError, msgspec.DecodeError) as error:
            raise ValueError(f"dreams.calibration: {place} is no recording: {error}") from None
        if len(found.quantiles) < 2 or list(found.quantiles) != sorted(found.quantiles):
            raise ValueError(f"dreams.calibration: the quantiles of {place} do not rise")
        return found
    return None
