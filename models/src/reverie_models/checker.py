"""Reads a picture back: which shapes, in which colours, on which background.

It knows nothing of how a picture was made. Masks of the shapes, drawn once by `pictures`, are
laid over each patch that stands out from the background.
"""

import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reverie_models.captions import describe
from reverie_models.palette import nearest_colour
from reverie_models.pictures import paint
from reverie_models.scenes import SHAPES, Figure, FlatScene, draw_pair, draw_single

UNCLEAR = "unclear"
_SIDE = 64
_MASK_SIDE = 24
_LEAST_OVERLAP = 0.64
_LEAST_PIXELS = 40
_STANDS_OUT = 55.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A shape seen: its name (or "unclear"), colour, and centre in fractions of the side."""

    shape: str
    colour: str
    x: float
    y: float
    pixels: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows: sightings from the largest to the smallest."""

    background: str
    sightings: tuple[Sighting, ...]


def _normalised(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A mask's bounding box, scaled into a square without changing its proportions."""
    rows, columns = np.nonzero(mask)
    box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = max(box.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - box.shape[0]) // 2, (side - box.shape[1]) // 2
    square[top : top + box.shape[0], left : left + box.shape[1]] = box * 255
    resized = Image.fromarray(square).resize((_MASK_SIDE, _MASK_SIDE), Image.Resampling.BOX)
    return np.asarray(resized, np.float32) / np.float32(255)


def _template(shape: str) -> NDArray[np.float32]:
    figure = Figure(shape, "black", (0, 0, 0), 0.5, 0.5, 0.4)
    picture = paint(FlatScene("white", (255, 255, 255), (figure,)), 256)
    return _normalised(picture[..., 0] < 128)


_TEMPLATES = {shape: _template(shape) for shape in SHAPES}


def shape_of(mask: NDArray[np.bool_]) -> str:
    """The shape whose mask overlaps best (intersection over union), or "unclear"."""
    seen = _normalised(mask)
    overlaps = {
        shape: float(np.minimum(seen, known).sum() / np.maximum(seen, known).sum())
        for shape, known in _TEMPLATES.items()
    }
    best = max(overlaps, key=overlaps.__getitem__)
    return best if overlaps[best] >= _LEAST_OVERLAP else UNCLEAR


def _patches(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The connected patches of a mask (sides and corners), the largest first."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        grown = labels
        for dy in range(3):
            for dx in range(3):
                grown = np.maximum(grown, padded[dy : dy + _SIDE, dx : dx + _SIDE])
        grown = np.where(mask, grown, 0)
        if np.array_equal(grown, labels):
            break
        labels = grown
    names, sizes = np.unique(labels[labels > 0], return_counts=True)
    order = np.argsort(-sizes)
    return [labels == names[index] for index in order if sizes[index] >= _LEAST_PIXELS]


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without its rim, unless nothing would be left."""
    padded = np.pad(mask, 1)
    core = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return core if core.sum() >= 8 else mask


def _native(picture: NDArray[np.generic]) -> NDArray[np.float32]:
    if picture.shape[:2] == (_SIDE, _SIDE):
        return picture.astype(np.float32)
    image = Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)


def read(picture: NDArray[np.generic]) -> Reading:
    """Reads a picture of shape (H, W, 3), 0 to 255; other sizes are averaged to 64x64."""
    pixels = _native(picture)
    rim = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    rim = np.concatenate([rim, pixels[:, :2].reshape(-1, 3), pixels[:, -2:].reshape(-1, 3)])
    background = np.median(rim, axis=0)
    away = np.sqrt(np.square(pixels - background).sum(axis=2))
    patches = _patches(away > _STANDS_OUT)
    sightings = []
    for patch in patches:
        tone = np.median(pixels[_inner(patch)], axis=0)
        half = np.sqrt(np.square(tone - background).sum()) / 2
        whole = _patches(patch & (away > half))
        mask = whole[0] if whole else patch
        rows, columns = np.nonzero(mask)
        centre = (float(columns.mean() + 0.5) / _SIDE, float(rows.mean() + 0.5) / _SIDE)
        sightings.append(Sighting(shape_of(mask), nearest_colour(tone), *centre, len(rows)))
    return Reading(nearest_colour(background), tuple(sightings))


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a picture answers its scene; `all_right` covers count, order and everything else."""

    background: bool
    colour: bool
    shape: bool
    all_right: bool


def _stands_right(first: Sighting, second: Sighting, relation: str) -> bool:
    across, down = first.x - second.x, first.y - second.y
    apart = {"left": -across, "right": across, "above": -down, "below": down}[relation]
    return apart > 0.1 and apart >= max(abs(across), abs(down)) - 1e-6


def judge(picture: NDArray[np.generic], scene: FlatScene) -> Verdict:
    """Compares a picture with the scene that its prompt describes."""
    reading = read(picture)
    background = reading.background == scene.background
    seen = list(reading.sightings[: len(scene.figures)])
    if len(scene.figures) == 2:
        if len(seen) < 2:
            return Verdict(background, False, False, False)
        if not _stands_right(seen[0], seen[1], scene.relation):
            seen.reverse()
        in_place = _stands_right(seen[0], seen[1], scene.relation)
    else:
        in_place = len(seen) == 1
    if not seen:
        return Verdict(background, False, False, False)
    pairs = list(zip(seen, scene.figures, strict=True))
    colour = all(sighting.colour == figure.colour for sighting, figure in pairs)
    shape = all(sighting.shape == figure.shape for sighting, figure in pairs)
    alone = len(reading.sightings) == len(scene.figures)
    return Verdict(background, colour, shape, background and colour and shape and in_place and alone)


@dataclass(slots=True)
class Tally:
    """Verdicts counted."""

    verdicts: list[Verdict] = field(default_factory=list)

    def add(self, picture: NDArray[np.generic], scene: FlatScene) -> None:
        """Judges one more picture."""
        self.verdicts.append(judge(picture, scene))

    def share(self, name: str) -> float:
        """The part of pictures whose verdict's field `name` holds, 0 to 1."""
        held = sum(bool(getattr(verdict, name)) for verdict in self.verdicts)
        return held / len(self.verdicts)

    def __str__(self) -> str:
        names = ("background", "colour", "shape", "all_right")
        return ", ".join(f"{name} {self.share(name):.1%}" for name in names)


def held_out_prompts(kind: str, count: int, seed: int = 11) -> list[tuple[str, FlatScene]]:
    """Captions and scenes of combinations that training never saw; `kind`: "single", "pair"."""
    rng = random.Random(f"held out/{kind}/{seed}")
    prompts: list[tuple[str, FlatScene]] = []
    while len(prompts) < count:
        draw = draw_single if kind == "single" else draw_pair
        scene = draw(rng, held_out=True)
        prompts.append((describe(scene, rng), scene))
    return prompts
