"""The twelve colours of the built-in model's world."""

import random

import numpy as np
from numpy.typing import NDArray

Tone = tuple[int, int, int]

COLOURS: dict[str, Tone] = {
    "red": (220, 35, 35),
    "green": (40, 165, 60),
    "blue": (40, 80, 215),
    "yellow": (245, 220, 45),
    "orange": (245, 140, 30),
    "purple": (135, 50, 175),
    "pink": (250, 140, 190),
    "cyan": (50, 210, 220),
    "white": (247, 247, 247),
    "black": (18, 18, 18),
    "gray": (135, 135, 135),
    "brown": (125, 75, 35),
}
NAMES = tuple(COLOURS)
_TABLE = np.array([COLOURS[name] for name in NAMES], dtype=np.float32)


def tone_near(colour: str, rng: random.Random, spread: int = 7) -> Tone:
    """A tone that everybody still calls `colour`: each channel moved by at most `spread`."""
    red, green, blue = (max(0, min(255, value + rng.randint(-spread, spread))) for value in COLOURS[colour])
    return red, green, blue


def nearest_colour(pixel: NDArray[np.floating]) -> str:
    """The palette name nearest to an RGB value of shape (3,), 0 to 255."""
    return NAMES[int(np.square(_TABLE - pixel).sum(axis=1).argmin())]
