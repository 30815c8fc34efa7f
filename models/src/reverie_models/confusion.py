"""Captions that are wrong for a scene by as little as possible."""

import random
from dataclasses import replace

from reverie_models.captions import describe
from reverie_models.palette import NAMES
from reverie_models.scenes import (
    LANDSCAPES,
    RELATIONS,
    SHAPES,
    FlatScene,
    Landscape,
    Scene,
    draw_landscape,
)

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def _other(choices: tuple[str, ...], *taken: str, rng: random.Random) -> str:
    return rng.choice([word for word in choices if word not in taken])


def _confused_flat(scene: FlatScene, rng: random.Random) -> FlatScene:
    figures = list(scene.figures)
    colours = tuple(figure.colour for figure in figures)
    which = rng.randrange(len(figures))
    figure = figures[which]
    kind = rng.random()
    if len(figures) == 2 and kind < 0.15:
        return _turned(scene, rng)
    if len(figures) == 2 and kind < 0.4:
        return _swapped(scene, rng)
    if kind < 0.65:
        figures[which] = replace(figure, shape=_other(SHAPES, figure.shape, rng=rng))
    elif kind < 0.85 or not scene.named_background:
        colour = _other(NAMES, *colours, scene.background, rng=rng)
        figures[which] = replace(figure, colour=colour)
    else:
        background = _other(NAMES, *colours, scene.background, rng=rng)
        return replace(scene, background=background)
    return replace(scene, figures=tuple(figures))


def _turned(scene: FlatScene, rng: random.Random) -> FlatScene:
    """Another direction between the figures. "and" and "next to" only ever mean "left"."""
    relation = _OPPOSITE[scene.relation] if rng.random() < 0.6 else rng.choice(tuple(RELATIONS))
    if relation == scene.relation:
        relation = _OPPOSITE[scene.relation]
    return replace(scene, relation=relation)


def _swapped(scene: FlatScene, rng: random.Random) -> FlatScene:
    """The two figures' colours or shapes exchanged: binding is what tells them apart."""
    first, second = scene.figures
    if first.shape == second.shape or rng.random() < 0.5:
        if first.shape == second.shape:
            return _turned(scene, rng)
        pair = replace(first, shape=second.shape), replace(second, shape=first.shape)
    else:
        pair = replace(first, colour=second.colour), replace(second, colour=first.colour)
    return replace(scene, figures=pair)


def _confused_landscape(scene: Landscape, rng: random.Random) -> Landscape:
    if scene.time != "night" and rng.random() < 0.3:
        return replace(scene, time="day" if scene.time == "sunset" else "sunset")
    kind = _other(LANDSCAPES, scene.kind, rng=rng)
    return draw_landscape(rng, kind)


def confused(scene: Scene, rng: random.Random) -> str:
    """A natural caption in which one thing about the scene is wrong."""
    if isinstance(scene, FlatScene):
        return describe(_confused_flat(scene, rng), rng)
    return describe(_confused_landscape(scene, rng), rng)
