"""The model that ships runs in the step engine like anybody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForText2Image

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Finished
from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_protocol.jobs import GenerateParams

FOLDER = Path(__file__).parents[3] / "models" / "builtin" / "text-to-image"


@pytest.fixture(scope="module")
def builtin() -> LoadedModel:
    return load_pipeline(FOLDER, device="cpu")


def params(**changes: object) -> GenerateParams:
    return GenerateParams(prompt="a red circle on a blue background", seed=7, size="64x64", **changes)


def test_the_shipped_model_goes_through_the_step_engine_and_can_be_previewed(builtin: LoadedModel) -> None:
    assert builtin.family == "sd15"
    engine = StepEngine(Shelf.holding(builtin))
    engine.admit("job", StepEngine(Shelf.holding(builtin)).resolve(params(), fallback_seed=1))
    while (preview := engine.preview("job")) is None:
        engine.step()
    assert (preview.width, preview.height) == (64, 64)


def test_its_picture_equals_that_of_the_bare_diffusers_pipeline_bit_for_bit(builtin: LoadedModel) -> None:
    engine = StepEngine(Shelf.holding(builtin))
    engine.admit("job", StepEngine(Shelf.holding(builtin)).resolve(params(), fallback_seed=1))
    events = []
    while engine.jobs:
        events += engine.step()
    finished = events[-1]
    assert isinstance(finished, Finished)
    bare = AutoPipelineForText2Image.from_pretrained(
        FOLDER, dtype=torch.float32, local_files_only=True, safety_checker=None
    )
    expected = bare(
        params().prompt,
        width=64,
        height=64,
        num_inference_steps=finished.meta.steps,
        guidance_scale=finished.meta.guidance,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    assert np.array_equal(np.array(finished.picture), np.array(expected))
