import random

import numpy as np
import pytest

from reverie_models.captions import describe, plain_caption
from reverie_models.checker import read
from reverie_models.pictures import paint
from reverie_models.scenes import (
    LANDSCAPES,
    FlatScene,
    Landscape,
    draw_landscape,
    draw_pair,
    draw_scene,
    draw_single,
    is_held_out,
)


def test_the_same_seed_gives_the_same_scenes_captions_and_bytes():
    def sample() -> list[tuple[str, bytes]]:
        rng = random.Random(5)
        scenes = [draw_scene(rng) for _ in range(60)]
        return [(describe(scene, rng), paint(scene).tobytes()) for scene in scenes]

    assert sample() == sample()


def test_training_never_draws_a_held_out_combination():
    rng = random.Random(6)
    trained = [draw_scene(rng) for _ in range(4000)]
    flat = [scene for scene in trained if isinstance(scene, FlatScene)]
    assert not any(is_held_out(scene.key) for scene in flat)
    held_out = {draw(rng, held_out=True).key for draw in (draw_single, draw_pair) for _ in range(500)}
    assert held_out.isdisjoint(scene.key for scene in flat)


def test_training_never_uses_a_held_out_wording_of_a_landscape():
    rng = random.Random(7)
    scenes = [draw_landscape(rng) for _ in range(1500)]
    trained = {describe(scene, rng) for scene in scenes}
    held_out = {describe(scene, rng, held_out=True) for scene in scenes}
    assert held_out.isdisjoint(trained)


def test_about_a_tenth_of_the_combinations_is_held_out():
    keys = [f"{colour}|{shape}" for colour in range(60) for shape in range(60)]
    assert 0.08 < sum(map(is_held_out, keys)) / len(keys) < 0.13


def test_figures_stay_inside_the_picture():
    rng = random.Random(8)
    for _ in range(500):
        for figure in draw_pair(rng).figures:
            assert figure.radius <= figure.x <= 1 - figure.radius
            assert figure.radius <= figure.y <= 1 - figure.radius


@pytest.mark.parametrize("kind", LANDSCAPES)
def test_every_landscape_has_a_caption_and_a_picture(kind: str):
    rng = random.Random(9)
    scene = draw_landscape(rng, kind)
    assert isinstance(scene, Landscape)
    assert describe(scene, rng)
    assert paint(scene, 32).shape == (32, 32, 3)
    assert paint(scene).std() > 10


def test_a_scene_keeps_its_content_at_any_size():
    rng = random.Random(10)
    for _ in range(20):
        scene = draw_single(rng)
        small, large = paint(scene, 64).astype(float), paint(scene, 256).astype(float)
        averaged = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert np.abs(small - averaged).mean() < 1.5
        assert read(small).background == read(large).background


def test_the_plain_caption_names_everything():
    rng = random.Random(11)
    scene = draw_pair(rng)
    caption = plain_caption(scene)
    for word in (scene.background, *(figure.shape for figure in scene.figures)):
        assert word in caption
