import random
from dataclasses import replace

import numpy as np
import pytest

from reverie_models.checker import UNCLEAR, held_out_prompts, judge, read, shape_of
from reverie_models.pictures import paint
from reverie_models.scenes import SHAPES, draw_pair, draw_single


@pytest.mark.parametrize("draw", [draw_single, draw_pair])
@pytest.mark.parametrize("held_out", [False, True])
def test_every_picture_of_the_data_set_is_read_right(draw, held_out: bool):
    rng = random.Random(f"checker/{held_out}")
    scenes = [draw(rng, held_out=held_out) for _ in range(250)]
    wrong = [scene for scene in scenes if not judge(paint(scene), scene).all_right]
    assert wrong == []


def test_enlarged_pictures_are_read_like_small_ones():
    rng = random.Random(2)
    scenes = [draw_pair(rng) for _ in range(20)]
    assert all(judge(paint(scene, 256), scene).all_right for scene in scenes)


@pytest.mark.parametrize("field", ["shape", "colour"])
def test_a_wrong_shape_or_colour_is_noticed(field: str):
    rng = random.Random(3)
    for _ in range(40):
        scene = draw_single(rng)
        other = {"shape": ("ring", "star"), "colour": ("cyan", "brown", "pink")}[field]
        figure = scene.figures[0]
        word = next(w for w in other if w not in (getattr(figure, field), scene.background))
        asked = replace(scene, figures=(replace(figure, **{field: word}),))
        verdict = judge(paint(scene), asked)
        assert not getattr(verdict, field)
        assert not verdict.all_right


def test_two_shapes_in_the_wrong_order_are_not_all_right():
    rng = random.Random(4)
    turned = {"left": "right", "right": "left", "above": "below", "below": "above"}
    for _ in range(40):
        scene = draw_pair(rng)
        asked = replace(scene, relation=turned[scene.relation])
        assert not judge(paint(scene), asked).all_right


def test_an_empty_picture_shows_nothing():
    reading = read(np.full((64, 64, 3), 247, np.uint8))
    assert reading.background == "white"
    assert reading.sightings == ()


def test_a_shapeless_patch_is_unclear():
    noise = np.random.default_rng(1).random((64, 64)) < 0.3
    assert shape_of(noise) == UNCLEAR
    assert UNCLEAR not in SHAPES


def test_held_out_prompts_are_the_same_every_time():
    assert held_out_prompts("pair", 20) == held_out_prompts("pair", 20)
