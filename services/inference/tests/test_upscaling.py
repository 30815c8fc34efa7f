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
from reverie_inference.engine.upscaling import FADE_PX, MAX_TILE_PX, MIN_TILE_PX, tile_side, upscale
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_inference.upscalers.compact import CompactNetwork
from reverie_inference.upscalers.esrgan import EsrganNetwork
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
def upscalers() -> dict[int, CompactNetwork]:
    """Untrained networks of the real shape."""
    torch.manual_seed(0)
    return {scale: CompactNetwork(scale, width=8, depth=8).eval() for scale in (2, 4)}


def esrgan(**changes: int) -> EsrganNetwork:
    torch.manual_seed(1)
    sizes = {"fold": 1, "width": 8, "growth": 4, "blocks": 1, "doublings": 2}
    return EsrganNetwork(**{**sizes, **changes}).eval()


NETWORKS = [
    CompactNetwork(2, width=8, depth=8).eval(),
    CompactNetwork(4, width=8, depth=2, learned_slopes=False).eval(),
    esrgan(),
    esrgan(doublings=1),
    esrgan(fold=2),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{type(network).__name__} {network.reach}")
@pytest.mark.parametrize("shape", [(64, 64), (70, 33), (35, 101)])
def test_tiles_join_without_a_seam(network: CompactNetwork | EsrganNetwork, shape: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    whole = value_of(upscale(network, image, tile=1000))
    tiled = value_of(upscale(network, image, tile=32))
    scale = network.scale
    assert whole.shape == (1, 3, shape[0] * scale, shape[1] * scale)
    assert torch.allclose(whole, tiled, atol=1e-5)
    in_bytes = (image * 255).round().to(torch.uint8)
    whole_bytes, tiled_bytes = (value_of(upscale(network, in_bytes, tile=tile)) for tile in (1000, 32))
    assert whole_bytes.dtype == torch.uint8
    assert int((whole_bytes.int() - tiled_bytes.int()).abs().max()) <= 1


def test_tiles_of_a_network_that_reaches_beyond_its_margin_fade_into_each_other() -> None:
    class Drifting(CompactNetwork):
        """Makes all of a tile a little brighter than the last one, as deep networks do in the worst case."""

        def __init__(self) -> None:
            super().__init__(2, width=8, depth=1)
            self.reach = 1000
            self.calls = 0

        def upscale(self, image: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return torch.full((*image.shape[:2], *(2 * side for side in image.shape[2:])), self.calls / 100)

    tiled = value_of(upscale(Drifting(), torch.zeros(1, 3, 96, 96), tile=48))
    corners = tiled[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.allclose(corners, torch.tensor([0.01, 0.02, 0.03, 0.04]))
    steps = torch.cat([tiled.diff(dim=2).flatten(), tiled.diff(dim=3).flatten()]).abs()
    assert float(steps.max()) < 0.03 / (2 * 2 * FADE_PX)  # the most that two strips differ, over the band


def test_a_tile_sees_no_more_than_itself_and_its_margin(upscalers: dict[int, CompactNetwork]) -> None:
    seen = []

    class Watching(CompactNetwork):
        def upscale(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image.shape)
            return super().upscale(image)

    value_of(upscale(Watching(2, width=8, depth=8), torch.rand(1, 3, 200, 300), tile=64))
    assert max(max(shape[2:]) for shape in seen) <= 64 + 2 * 10


def test_the_wider_a_network_the_smaller_its_tiles() -> None:
    assert tile_side(CompactNetwork(2)) == MAX_TILE_PX
    assert MIN_TILE_PX < tile_side(esrgan(width=64, growth=32)) < MAX_TILE_PX


def test_a_picture_goes_to_eight_bits_and_back_unchanged() -> None:
    image = to_image(torch.rand(1, 3, 9, 7))
    assert image.size == (7, 9)
    assert np.array_equal(np.array(to_image(to_picture(image, torch.device("cpu")))), np.array(image))


def test_the_plan_is_carried_out_in_its_order(upscalers: dict[int, CompactNetwork]) -> None:
    plan = PicturePlan((64, 64), (4, 2), (384, 320), 1, (768, 640))
    assert value_of(finish_picture(torch.rand(1, 3, 64, 64), plan, upscalers)).size == (768, 640)


def test_the_engine_upscales_what_the_plan_asks_and_says_so(
    models: dict[str, LoadedModel], upscalers: dict[int, CompactNetwork]
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
    models: dict[str, LoadedModel], upscalers: dict[int, CompactNetwork]
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
