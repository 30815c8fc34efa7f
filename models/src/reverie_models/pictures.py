"""Draws a scene at any size."""

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from reverie_models.palette import Tone
from reverie_models.scenes import Figure, FlatScene, Landscape, Scene

Point = tuple[float, float]
_OVERSAMPLING = 4
_SKIES: dict[str, tuple[Tone, Tone]] = {
    "day": ((80, 160, 240), (195, 228, 250)),
    "sunset": ((125, 60, 145), (253, 155, 75)),
    "night": ((12, 14, 50), (40, 45, 105)),
}


def _outline(shape: str) -> list[Point]:
    """The polygon of a shape with centre 0, reaching from -1 to 1 on its larger side."""
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        return [(0, -0.92), (1.0, 0.82), (-1.0, 0.82)]
    if shape == "diamond":
        return [(0, -1.0), (0.72, 0), (0, 1.0), (-0.72, 0)]
    if shape == "star":
        radii = (1.05, 0.43)
        turns = [(radii[i % 2], -math.pi / 2 + i * math.pi / 5) for i in range(10)]
        return [(r * math.cos(turn), 0.06 + r * math.sin(turn)) for r, turn in turns]
    if shape == "cross":
        arm = 0.33
        quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm), (arm, 1.0)]
        return quarter + [(-x, -y) for x, y in quarter]
    if shape == "heart":
        return [_heart_point(2 * math.pi * i / 48) for i in range(48)]
    raise KeyError(shape)


def _heart_point(turn: float) -> Point:
    height = 13 * math.cos(turn) - 5 * math.cos(2 * turn)
    height -= 2 * math.cos(3 * turn) + math.cos(4 * turn)
    return math.sin(turn) ** 3, -(height + 2.5) / 15.5


_OUTLINES = {name: _outline(name) for name in ["square", "triangle", "diamond", "star", "cross", "heart"]}


class _Canvas:
    """A drawing in unit coordinates, drawn larger and averaged down."""

    def __init__(self, size: int, tone: Tone) -> None:
        self.side = size * _OVERSAMPLING
        self.image = Image.new("RGB", (self.side, self.side), tone)
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: list[Point], tone: Tone) -> None:
        side = self.side
        self._draw.polygon([(x * side, y * side) for x, y in points], fill=tone)

    def ellipse(self, x: float, y: float, wide: float, high: float, tone: Tone) -> None:
        side = self.side
        box = [(x - wide) * side, (y - high) * side, (x + wide) * side, (y + high) * side]
        self._draw.ellipse(box, fill=tone)

    def rectangle(self, left: float, top: float, right: float, bottom: float, tone: Tone) -> None:
        side = self.side
        self._draw.rectangle([left * side, top * side, right * side, bottom * side], fill=tone)

    def sky(self, upper: Tone, lower: Tone, horizon: float) -> None:
        rows = np.linspace(0, 1, max(1, int(self.side * horizon)), dtype=np.float32)[:, None]
        column = np.asarray(upper) * (1 - rows) + np.asarray(lower) * rows
        strip = Image.fromarray(column.astype(np.uint8)[:, None, :])
        self.image.paste(strip.resize((self.side, strip.height), Image.Resampling.NEAREST))

    def pixels(self) -> NDArray[np.uint8]:
        return np.asarray(self.image.reduce(_OVERSAMPLING))


def _draw_figure(canvas: _Canvas, figure: Figure, background: Tone) -> None:
    x, y, radius = figure.x, figure.y, figure.radius
    if figure.shape in ("circle", "ring"):
        canvas.ellipse(x, y, radius, radius, figure.tone)
        if figure.shape == "ring":
            canvas.ellipse(x, y, radius * 0.55, radius * 0.55, background)
        return
    outline = _OUTLINES[figure.shape]
    canvas.polygon([(x + px * radius, y + py * radius) for px, py in outline], figure.tone)


def _ridge(rng: random.Random, base: float, height: float, waves: float) -> list[Point]:
    phase = rng.uniform(0, 2 * math.pi)
    crest = [(i / 32, base + height * math.sin(phase + waves * 2 * math.pi * i / 32)) for i in range(33)]
    return [(0.0, 1.02), *crest, (1.0, 1.02)]


def _dimmed(tone: Tone, light: float) -> Tone:
    return int(tone[0] * light), int(tone[1] * light), int(tone[2] * light)


@dataclass(frozen=True, slots=True)
class _View:
    """What the parts of one landscape share; `side` is -1 or 1: where the sun stands."""

    canvas: _Canvas
    scene: Landscape
    rng: random.Random
    horizon: float
    light: float
    side: int

    def dimmed(self, tone: Tone) -> Tone:
        """A tone in this light."""
        return _dimmed(tone, self.light)

    def ridge(self, base: float, height: float, waves: float, tone: Tone) -> None:
        """A rolling line, filled down to the lower edge."""
        self.canvas.polygon(_ridge(self.rng, base, height, waves), tone)


def _draw_house(canvas: _Canvas, x: float, ground: float, light: float, window: Tone) -> None:
    canvas.rectangle(x - 0.11, ground - 0.15, x + 0.11, ground + 0.03, _dimmed((235, 220, 195), light))
    roof = [(x - 0.15, ground - 0.15), (x, ground - 0.29), (x + 0.15, ground - 0.15)]
    canvas.polygon(roof, _dimmed((190, 50, 40), light))
    canvas.rectangle(x + 0.01, ground - 0.08, x + 0.07, ground + 0.03, _dimmed((95, 55, 30), light))
    canvas.rectangle(x - 0.08, ground - 0.11, x - 0.03, ground - 0.05, window)


def _draw_pine(view: _View, x: float, foot: float, height: float, green: Tone) -> None:
    canvas = view.canvas
    canvas.rectangle(x - 0.02, foot - 0.25 * height, x + 0.02, foot, view.dimmed((105, 65, 35)))
    for low, high, wide in ((0.18, 0.65, 0.32), (0.45, 1.0, 0.24)):
        left, right = x - wide * height, x + wide * height
        top = foot - high * height
        canvas.polygon(
            [(left, foot - low * height), (x, top), (right, foot - low * height)], view.dimmed(green)
        )


def _draw_landscape(canvas: _Canvas, scene: Landscape) -> None:
    rng = random.Random(scene.detail_seed)
    light = {"day": 1.0, "sunset": 0.78, "night": 0.42}[scene.time]
    upper, lower = _SKIES[scene.time]
    horizon = rng.uniform(0.58, 0.64)
    canvas.sky(upper, lower, horizon + 0.2)
    side = rng.choice((-1, 1))
    if scene.time == "day":
        canvas.ellipse(0.5 + side * 0.28, 0.2, 0.1, 0.1, (255, 228, 70))
    elif scene.time == "sunset":
        canvas.ellipse(0.5 + side * 0.2, horizon - 0.08, 0.12, 0.12, (255, 95, 50))
    _GROUNDS[scene.kind](_View(canvas, scene, rng, horizon, light, side))


def _hills(view: _View) -> None:
    canvas, rng, side = view.canvas, view.rng, view.side
    view.ridge(view.horizon, 0.06, rng.uniform(1, 1.5), view.dimmed((105, 190, 85)))
    if view.scene.extra == "house":
        _draw_house(canvas, 0.5 - side * 0.18, 0.8, view.light, (255, 235, 150))
    view.ridge(0.84, 0.04, rng.uniform(0.8, 1.3), view.dimmed((55, 145, 60)))


def _mountains(view: _View) -> None:
    canvas, rng, side = view.canvas, view.rng, view.side
    for x, peak in (
        (0.5 + side * 0.27, rng.uniform(0.3, 0.38)),
        (0.5 - side * 0.16, rng.uniform(0.16, 0.22)),
    ):
        slope = 0.72
        rise = 0.82 - peak
        grey = _dimmed((110, 112, 128), view.light * rng.uniform(0.92, 1.05))
        canvas.polygon([(x, peak), (x + rise * slope, 0.82), (x - rise * slope, 0.82)], grey)
        cap = 0.36 * rise
        wide = cap * slope
        zigzag = [(x + wide, peak + cap), (x + wide * 0.4, peak + cap * 0.75)]
        zigzag += [
            (x, peak + cap * 1.1),
            (x - wide * 0.4, peak + cap * 0.75),
            (x - wide, peak + cap),
        ]
        canvas.polygon([(x, peak), *zigzag], _dimmed((248, 250, 255), min(1.0, view.light + 0.1)))
    view.ridge(0.8, 0.015, 1.2, view.dimmed((85, 155, 80)))


def _sea(view: _View) -> None:
    canvas, rng, side = view.canvas, view.rng, view.side
    canvas.rectangle(0, view.horizon, 1.01, 1.01, view.dimmed((35, 100, 190)))
    for row in (0.74, 0.84, 0.93):
        x = rng.uniform(0.05, 0.75)
        canvas.rectangle(x, row, x + 0.18, row + 0.02, view.dimmed((130, 190, 235)))
    if view.scene.extra == "boat":
        x, y = 0.5 - side * rng.uniform(0.08, 0.16), view.horizon + 0.12
        canvas.rectangle(x - 0.012, y - 0.36, x + 0.012, y, view.dimmed((80, 50, 30)))
        canvas.polygon([(x + 0.02, y - 0.35), (x + 0.02, y - 0.04), (x + 0.21, y - 0.04)], (245, 240, 235))
        canvas.polygon([(x - 0.02, y - 0.28), (x - 0.02, y - 0.04), (x - 0.15, y - 0.04)], (245, 240, 235))
        hull = [
            (x - 0.21, y - 0.01),
            (x + 0.24, y - 0.01),
            (x + 0.15, y + 0.1),
            (x - 0.14, y + 0.1),
        ]
        canvas.polygon(hull, view.dimmed((135, 75, 40)))


def _desert(view: _View) -> None:
    canvas, rng, side = view.canvas, view.rng, view.side
    view.ridge(view.horizon, 0.04, 1.0, view.dimmed((240, 205, 125)))
    view.ridge(0.84, 0.05, 0.8, view.dimmed((220, 170, 90)))
    if view.scene.extra == "cactus":
        x, green = 0.5 - side * rng.uniform(0.08, 0.16), view.dimmed((45, 135, 65))
        canvas.rectangle(x - 0.05, 0.36, x + 0.05, 0.88, green)
        canvas.ellipse(x, 0.36, 0.05, 0.05, green)
        for way, low, high in ((-1, 0.64, 0.47), (1, 0.58, 0.42)):
            near, far = sorted((x, x + way * 0.17))
            canvas.rectangle(near, low - 0.035, far, low + 0.035, green)
            arm = x + way * 0.17
            canvas.rectangle(arm - 0.035, high, arm + 0.035, low + 0.035, green)
            canvas.ellipse(arm, high, 0.035, 0.035, green)


def _forest(view: _View) -> None:
    canvas, rng = view.canvas, view.rng
    canvas.rectangle(0, view.horizon + 0.08, 1.01, 1.01, view.dimmed((120, 185, 85)))
    for x in (0.12, 0.5, 0.88):
        foot, height = view.horizon + rng.uniform(0.12, 0.16), rng.uniform(0.42, 0.5)
        _draw_pine(view, x + rng.uniform(-0.03, 0.03), foot, height, (45, 120, 70))
    for x in (0.3, 0.7):
        foot, height = rng.uniform(0.9, 0.94), rng.uniform(0.6, 0.68)
        _draw_pine(view, x + rng.uniform(-0.03, 0.03), foot, height, (25, 90, 50))


def _night(view: _View) -> None:
    canvas, rng, side = view.canvas, view.rng, view.side
    for column in range(5):
        for row in range(3):
            x, y = (
                0.1 + 0.2 * column + rng.uniform(-0.06, 0.06),
                0.1 + 0.17 * row + rng.uniform(-0.05, 0.05),
            )
            canvas.ellipse(x, y, 0.022, 0.022, (250, 250, 220))
    canvas.ellipse(0.5 + side * 0.24, 0.24, 0.13, 0.13, (242, 240, 205))
    view.ridge(view.horizon + 0.1, 0.05, rng.uniform(1, 1.5), (30, 70, 55))
    if view.scene.extra == "house":
        _draw_house(canvas, 0.5 - side * 0.18, 0.86, 0.5, (255, 215, 90))
    view.ridge(0.9, 0.03, rng.uniform(0.8, 1.3), (18, 48, 40))


_GROUNDS = {
    "hills": _hills,
    "mountains": _mountains,
    "sea": _sea,
    "desert": _desert,
    "forest": _forest,
    "night": _night,
}


def paint(scene: Scene, size: int = 64) -> NDArray[np.uint8]:
    """The picture of a scene as RGB of shape (size, size, 3); the same scene, the same bytes."""
    if isinstance(scene, FlatScene):
        canvas = _Canvas(size, scene.background_tone)
        for figure in scene.figures:
            _draw_figure(canvas, figure, scene.background_tone)
    else:
        canvas = _Canvas(size, (0, 0, 0))
        _draw_landscape(canvas, scene)
    return canvas.pixels()
