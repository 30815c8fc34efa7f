"""What a picture shows, independent of its size: drawn at random, with a held-out part.

Coordinates are fractions of the picture's side, y downwards.
"""

import hashlib
import random
from dataclasses import dataclass

from reverie_models.palette import NAMES, Tone, tone_near

SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "ring", "cross")
SIZES = {"": (0.29, 0.35), "small": (0.17, 0.20), "large": (0.39, 0.42)}
PLACES = {
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
RELATIONS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
LANDSCAPES = ("hills", "mountains", "sea", "desert", "forest", "night")
EXTRAS = {
    "hills": ("", "house"),
    "mountains": ("",),
    "sea": ("boat", ""),
    "desert": ("cactus", ""),
    "forest": ("",),
    "night": ("", "house"),
}
TIMES = ("day", "sunset")
_HELD_OUT_BYTES = 26  # of 256: about one combination in ten is never trained on


@dataclass(frozen=True, slots=True)
class Figure:
    """One flat shape; `radius` is half its larger side."""

    shape: str
    colour: str
    tone: Tone
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class FlatScene:
    """One or two figures on a plain background.

    `size` and `place` describe a single figure; `relation` says where the first of two figures
    lies from the second. Empty words are not mentioned in a caption. With `named_background`
    false the caption leaves the background out, and it is white (black behind a white figure).
    """

    background: str
    background_tone: Tone
    figures: tuple[Figure, ...]
    size: str = ""
    place: str = ""
    relation: str = ""
    named_background: bool = True

    @property
    def key(self) -> str:
        """The combination of words that the held-out split goes by."""
        words = [f"{figure.colour} {figure.shape}" for figure in self.figures]
        return "|".join([*words, self.background] if len(words) == 1 else words)


@dataclass(frozen=True, slots=True)
class Landscape:
    """One of six kinds of landscape; `detail_seed` fixes its outlines."""

    kind: str
    time: str
    extra: str
    detail_seed: int


Scene = FlatScene | Landscape


def is_held_out(key: str) -> bool:
    """Whether a combination belongs to the tenth that training never sees."""
    return hashlib.md5(key.encode(), usedforsecurity=False).digest()[0] < _HELD_OUT_BYTES


def draw_single(rng: random.Random, *, held_out: bool = False, plain: bool = False) -> FlatScene:
    """One figure on a background; `plain` leaves size and place words out."""
    while True:
        shape = rng.choice(SHAPES)
        colour, background = rng.sample(NAMES, 2)
        if is_held_out(f"{colour} {shape}|{background}") == held_out:
            break
    size, place, named = "", "", True
    kind = 1.0 if plain else rng.random()
    if kind < 0.15:
        size = rng.choice(("small", "large"))
    elif kind < 0.30:
        place = rng.choice(tuple(PLACES))
    elif kind < 0.36:
        unnamed = "black" if colour == "white" else "white"
        if is_held_out(f"{colour} {shape}|{unnamed}") == held_out:
            background, named = unnamed, False
    x, y, radius, wander = 0.5, 0.5, rng.uniform(*SIZES[size]), 0.05
    if size == "large":
        wander = 0.02
    if place:
        step_x, step_y = PLACES[place]
        radius, wander = rng.uniform(0.19, 0.22), 0.03
        x, y = 0.5 + 0.23 * step_x, 0.5 + 0.23 * step_y
    figure = Figure(
        shape,
        colour,
        tone_near(colour, rng),
        x + rng.uniform(-wander, wander),
        y + rng.uniform(-wander, wander),
        radius,
    )
    tone = tone_near(background, rng)
    return FlatScene(background, tone, (figure,), size, place, "", named)


def draw_pair(rng: random.Random, *, held_out: bool = False) -> FlatScene:
    """Two figures of different colours, side by side or one above the other."""
    while True:
        shapes = rng.choice(SHAPES), rng.choice(SHAPES)
        *colours, background = rng.sample(NAMES, 3)
        key = f"{colours[0]} {shapes[0]}|{colours[1]} {shapes[1]}"
        if is_held_out(key) == held_out:
            break
    relation = rng.choices(tuple(RELATIONS), (4, 2, 2, 2))[0]
    step_x, step_y = RELATIONS[relation]
    figures = []
    for shape, colour, side in zip(shapes, colours, (1, -1), strict=True):
        x = 0.5 + 0.24 * step_x * side + rng.uniform(-0.015, 0.015)
        y = 0.5 + 0.24 * step_y * side + rng.uniform(-0.015, 0.015)
        radius = rng.uniform(0.19, 0.21)
        figures.append(Figure(shape, colour, tone_near(colour, rng), x, y, radius))
    return FlatScene(background, tone_near(background, rng), tuple(figures), relation=relation)


def draw_landscape(rng: random.Random, kind: str = "") -> Landscape:
    """A landscape of the named kind, or of any."""
    kind = kind or rng.choice(LANDSCAPES)
    time = "night" if kind == "night" else rng.choices(TIMES, (2, 1))[0]
    return Landscape(kind, time, rng.choice(EXTRAS[kind]), rng.getrandbits(32))


def draw_scene(rng: random.Random, pairs: float = 0.35, landscapes: float = 0.2) -> Scene:
    """A training scene; `pairs` and `landscapes` are their shares of all scenes."""
    kind = rng.random()
    if kind < pairs:
        return draw_pair(rng)
    if kind < pairs + landscapes:
        return draw_landscape(rng)
    return draw_single(rng)
