"""The weights in `models/builtin`; floors are modest, `reverie_models.evaluate` has the bars."""

import json
import random

import pytest
import torch
from diffusers import (
    AutoPipelineForText2Image,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from transformers import CLIPModel, CLIPTokenizer

from reverie_inference.upscalers.library import load_upscaler
from reverie_models import scorer, super_resolution
from reverie_models.checker import Tally, held_out_prompts
from reverie_models.evaluate import BUILTIN, pictures_for
from reverie_models.scenes import draw_pair, draw_single


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = AutoPipelineForText2Image.from_pretrained(
        BUILTIN / "text-to-image", local_files_only=True, dtype=torch.float32
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def defaults() -> dict:
    return json.loads((BUILTIN / "text-to-image" / "reverie.json").read_text())


def test_everything_together_stays_below_15_megabytes():
    assert sum(path.stat().st_size for path in BUILTIN.rglob("*") if path.is_file()) <= 15e6


def test_only_safetensors_and_text_are_shipped():
    kinds = {path.suffix for path in BUILTIN.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".txt", ".md", ""}


def test_no_configuration_names_the_place_where_it_was_trained():
    configs = [json.loads(path.read_text()) for path in BUILTIN.rglob("*config.json")]
    assert configs
    assert not any(config.get("_name_or_path") for config in configs)


def test_diffusers_loads_the_folder_as_a_plain_pipeline(pipeline, defaults):
    assert type(pipeline) is StableDiffusionPipeline
    assert pipeline.safety_checker is None
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    assert defaults["native_size"] == [side, side]
    assert defaults["mode"] == "builtin"


def test_most_held_out_prompts_get_their_colours(pipeline, defaults):
    prompts = held_out_prompts("single", 24)
    texts = [text for text, _ in prompts]
    steps, guidance = defaults["default_steps"], defaults["default_guidance"]
    tally = Tally()
    for picture, (_, scene) in zip(pictures_for(pipeline, texts, 3, steps, guidance), prompts, strict=True):
        tally.add(picture * 255, scene)
    assert tally.share("background") >= 0.9
    assert tally.share("colour") >= 0.8
    assert tally.share("shape") >= SHAPE_FLOOR


SHAPE_FLOOR = 0.7


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_other_schedulers_draw_finite_pictures(pipeline, scheduler):
    kept = pipeline.scheduler
    pipeline.scheduler = scheduler.from_config(kept.config)
    try:
        picture = pictures_for(pipeline, ["a red circle on a blue background"], 1, 6, 2.5)
    finally:
        pipeline.scheduler = kept
    assert picture.shape == (1, 64, 64, 3)
    assert picture.std() > 0.05


@pytest.mark.parametrize("prompt", ["", "A RED CIRCLE", "Ω 漢字 🙂 zxqv", "a blue square " * 60])
def test_any_prompt_makes_a_picture(pipeline, prompt: str):
    picture = pictures_for(pipeline, [prompt], 1, 3, 2.5)
    assert picture.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("scale", super_resolution.SCALES)
def test_super_resolution_beats_bicubic(pipeline, scale: int):
    network = load_upscaler(BUILTIN / "super-resolution" / f"x{scale}.safetensors")
    figures = super_resolution.measure(network, pipeline.vae, 12)
    assert set(figures) == {"clean", "generated"}
    for mine, bicubic in figures.values():
        assert mine > bicubic + 0.2


def test_the_scorer_loads_through_transformers():
    model = CLIPModel.from_pretrained(BUILTIN / "scorer", local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(BUILTIN / "scorer", local_files_only=True)
    ids = tokenizer(["a red circle"], padding="max_length", return_tensors="pt").input_ids
    pixels = torch.zeros(1, 3, 64, 64)
    assert model(input_ids=ids, pixel_values=pixels).logits_per_image.shape == (1, 1)


@pytest.mark.parametrize(("draw", "floor"), [(draw_single, 0.8), (draw_pair, 0.7)])
def test_the_scorer_ranks_the_right_caption_above_a_slightly_wrong_one(draw, floor: float):
    model, tokenizer = scorer.load(BUILTIN / "scorer")
    rng = random.Random(12)
    scenes = [draw(rng, held_out=True) for _ in range(100)]
    assert scorer.ranking_share(model, tokenizer, scenes, rng) >= floor
