from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import numpy as np
import pytest
import torch

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Finished, Started
from reverie_inference.engine.finishing import finish_picture, to_image, to_picture
from reverie_inference.engine.picture_plan import PicturePlan
from reverie_inference.engine.upscaling import upscale
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_inference.super_resolution import Upscaler
from reverie_protocol.jobs import GenerateParams, Phase

T = TypeVar("T")


def value_of(work: Generator[None, None, T]) -> T:
    """Carry out all pieces of the work; its value."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def upscalers() -> dict[int, Upscaler]:
    """Untrained networks of the real shape."""
    torch.manual_seed(0)
    return {scale: Upscaler(scale, width=8, depth=8).eval() for scale in (2, 4)}


@pytest.mark.parametrize("shape", [(64, 64), (70, 33), (65, 130)])
def test_tiles_join_without_a_seam(upscalers: dict[int, Upscaler], shape: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    whole = value_of(upscale(upscalers[2], image, tile=1000))
    tiled = value_of(upscale(upscalers[2], image, tile=32))
    assert whole.shape == (1, 3, shape[0] * 2, shape[1] * 2)
    assert torch.allclose(whole, tiled, atol=1e-5)


def test_a_tile_sees_no_more_than_itself_and_its_margin(upscalers: dict[int, Upscaler]) -> None:
    seen = []

    class Watching:
        scale = 2

        def upscale(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image.shape)
            return upscalers[2].upscale(image)

    value_of(upscale(Watching(), torch.rand(1, 3, 200, 300), tile=64, margin=16))
    assert max(max(shape[2:]) for shape in seen) <= 64 + 2 * 16


def test_a_picture_goes_to_eight_bits_and_back_unchanged() -> None:
    image = to_image(torch.rand(1, 3, 9, 7))
    assert image.size == (7, 9)
    assert np.array_equal(np.array(to_image(to_picture(image, torch.device("cpu")))), np.array(image))


def test_the_plan_is_carried_out_in_its_order(upscalers: dict[int, Upscaler]) -> None:
    plan = PicturePlan((64, 64), (4, 2), (384, 320), 1, (768, 640))
    assert value_of(finish_picture(torch.rand(1, 3, 64, 64), plan, upscalers)).size == (768, 640)


def test_the_engine_upscales_what_the_plan_asks_and_says_so(
    models: dict[str, LoadedModel], upscalers: dict[int, Upscaler]
) -> None:
    model = models["sd15"]
    params = GenerateParams(
        prompt="x", size="64x64", num_inference_steps=1, superres=True, superres_magnitude=1
    )
    request = StepEngine(Shelf.holding(model), upscalers=upscalers).resolve(params, fallback_seed=0)
    engine = StepEngine(Shelf.holding(model), upscalers=upscalers)
    engine.admit("job", request)
    events = []
    while engine.jobs:
        events += engine.step()
    assert Started("job", Phase.UPSCALING) in events
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.picture.size == (128, 128)
    assert (last.meta.sr, last.meta.sr_passes, last.meta.sr_scale_per_pass) == (True, 1, 2)
    assert (last.meta.size, last.meta.native_size) == ("128x128", "64x64")


def test_a_job_leaves_between_two_tiles_with_what_was_drawn(
    models: dict[str, LoadedModel], upscalers: dict[int, Upscaler]
) -> None:
    model = models["tiny_vae"]
    params = GenerateParams(
        prompt="x", size="1024x64", num_inference_steps=1, superres=True, superres_magnitude=1
    )
    engine = StepEngine(Shelf.holding(model), upscalers=upscalers)
    engine.admit(
        "job", StepEngine(Shelf.holding(model), upscalers=upscalers).resolve(params, fallback_seed=0)
    )
    while Started("job", Phase.UPSCALING) not in engine.step():
        pass
    assert engine.step() == []
    left = engine.leave("job", keep_partial=True)
    assert left is not None
    assert left.picture is not None
    assert left.picture.size == (1024, 64)
