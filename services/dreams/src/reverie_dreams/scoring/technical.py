"""`technical`: is it a sound picture?  Sharpness, exposure, noise, blankness; the prompt does not matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


class Technical:
    """Classical measures, joined so that one bad one cannot be outweighed by the others."""

    def __init__(self, options: str = "") -> None:
        del options

    def raw(self, pictures: Sequence[Image.Image], prompt: str) -> list[float]:
        """See `Scorer.raw`; 0..1."""
        del prompt
        return [technical_quality(np.asarray(picture.convert("RGB"), float) / 255) for picture in pictures]


def technical_quality(rgb: np.ndarray) -> float:
    """Geometric mean of four fractions of an [H, W, 3] picture in 0..1."""
    light = rgb @ np.asarray([0.299, 0.587, 0.114])
    # Red on blue may be one grey: edges are looked for in the colour that has most of them.
    clearest = rgb[..., int(np.argmax(rgb.std(axis=(0, 1))))]
    parts = (sharpness(clearest), exposure(light), 1 - noise(clearest), variety(clearest))
    return float(np.prod([max(part, 1e-3) for part in parts]) ** (1 / len(parts)))


def sharpness(light: np.ndarray) -> float:
    """How steep the steepest edges are: 0 is a blur, 1 an edge from one pixel to the next."""
    steps = np.concatenate([np.abs(np.diff(light, axis=0)).ravel(), np.abs(np.diff(light, axis=1)).ravel()])
    across = np.concatenate(
        [
            np.abs(light[3:] - light[:-3]).ravel(),
            np.abs(light[:, 3:] - light[:, :-3]).ravel(),
        ]
    )
    rise = _steepest(across)
    return 0.0 if rise < 0.02 else float(min(1.0, _steepest(steps) / rise))


def _steepest(steps: np.ndarray) -> float:
    """Mean of the largest hundredth: a thin figure has few edges."""
    count = max(8, steps.size // 100)
    return float(np.partition(steps, -min(count, steps.size))[-count:].mean())


def exposure(light: np.ndarray) -> float:
    """1 minus what is lost in black and white beyond a tenth, and how far the mean is off."""
    clipped = max(0.0, float(np.mean((light < 0.01) | (light > 0.99))) - 0.1)
    off = max(0.0, abs(float(light.mean()) - 0.5) - 0.3)
    return max(0.0, 1.0 - clipped - 2 * off)


def noise(light: np.ndarray) -> float:
    """Grain in the flattest half of the picture: 0 is none, 1 is static."""
    if min(light.shape) < 3:
        return 0.0
    middle = light[1:-1, 1:-1]
    around = (light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:]) / 4
    return float(min(1.0, np.quantile(np.abs(middle - around), 0.5) * 12))


def variety(light: np.ndarray) -> float:
    """0 for a blank picture; anything with a figure in it is near 1."""
    return float(min(1.0, light.std() / 0.08))
