"""`aesthetic`: does it please?  Colourfulness, contrast, where the weight lies, and how busy it is.

Classical measures, not a trained taste: they say what is dull, muddy or overcrowded, not what is beautiful.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


class Aesthetic:
    """A mean of four fractions; the prompt does not matter."""

    def __init__(self, options: str = "") -> None:
        del options

    def raw(self, pictures: Sequence[Image.Image], prompt: str) -> list[float]:
        """See `Scorer.raw`; 0..1."""
        del prompt
        return [aesthetic_quality(np.asarray(picture.convert("RGB"), float) / 255) for picture in pictures]


def aesthetic_quality(rgb: np.ndarray) -> float:
    """Of an [H, W, 3] picture in 0..1."""
    light = rgb.mean(axis=2)
    return 0.35 * colourfulness(rgb) + 0.25 * contrast(light) + 0.2 * balance(light) + 0.2 * calm(light)


def colourfulness(rgb: np.ndarray) -> float:
    """Spread and strength of the opponent colours (after Hasler and Süsstrunk, 2003); 1 is very colourful."""
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    strength = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(min(1.0, (spread + 0.3 * strength) / 0.6))


def contrast(light: np.ndarray) -> float:
    """How much of the range from black to white is used, its outermost twentieths left aside."""
    return float(np.quantile(light, 0.95) - np.quantile(light, 0.05))


def balance(light: np.ndarray) -> float:
    """How near what stands out lies to the centre or to a crossing of the thirds."""
    salience = np.abs(light - np.median(light))
    total = salience.sum()
    if total < 1e-6:
        return 0.0
    rows, columns = np.indices(light.shape)
    y = float((rows * salience).sum() / total / max(1, light.shape[0] - 1))
    x = float((columns * salience).sum() / total / max(1, light.shape[1] - 1))
    places = ((0.5, 0.5), *((a, b) for a in (1 / 3, 2 / 3) for b in (1 / 3, 2 / 3)))
    return float(max(0.0, 1 - 3 * min(np.hypot(y - a, x - b) for a, b in places)))


def calm(light: np.ndarray) -> float:
    """1 where about a tenth of the pixels are edges; less for emptier and for busier pictures."""
    edges = np.hypot(np.diff(light, axis=0)[:, 1:], np.diff(light, axis=1)[1:])
    part = float(np.mean(edges > 0.08))
    return float(np.exp(-(((part - 0.1) / 0.15) ** 2)))
