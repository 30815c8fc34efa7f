"""Image to image and inpainting in the step engine, against diffusers' own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Event, Failed, Finished, Stepped
from reverie_inference.engine.init_image import size_of
from reverie_inference.engine.pictures import Pictures
from reverie_inference.engine.schedulers import make_scheduler
from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams

SIZE = (96, 64)
PIPELINES = {
    ("sd15", False): diffusers.StableDiffusionImg2ImgPipeline,
    ("sd15", True): diffusers.StableDiffusionInpaintPipeline,
    ("sdxl", False): diffusers.StableDiffusionXLImg2ImgPipeline,
    ("sdxl", True): diffusers.StableDiffusionXLInpaintPipeline,
}


def noise(size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (size[1], size[0], len(mode)), dtype="u1")
    return Image.fromarray(values)


def mask(size: tuple[int, int] = SIZE) -> Image.Image:
    picture = Image.new("RGB", size)
    picture.paste("white", (size[0] // 4, 8, size[0] // 2, size[1] - 8))
    return picture


def params(**changes: Any) -> GenerateParams:
    defaults = {
        "prompt": "a red cat",
        "negative_prompt": "ugly",
        "initImage": "abc",
        "num_inference_steps": 5,
        "guidance_scale": 5.0,
        "seed": 7,
        "strength": 0.65,
    }
    return GenerateParams(**{**defaults, **changes})


def events_of(model: LoadedModel, pictures: Pictures, **changes: Any) -> list[Event]:
    engine = StepEngine(Shelf.holding(model))
    if pictures.mask is not None:
        changes["maskImage"] = "def"
    engine.admit("job", engine.resolve(params(**changes), fallback_seed=1, pictures=pictures))
    events = []
    while engine.jobs:
        events += engine.step()
    return events


def picture_of(events: list[Event]) -> Image.Image:
    assert isinstance(events[-1], Finished), events[-1]
    return events[-1].picture


def diffusers_picture(model: LoadedModel, pictures: Pictures, scheduler: str | None, **changes: Any) -> Any:
    masked = pictures.mask is not None
    wanted = params(**changes)
    pipeline = PIPELINES[model.family, masked](
        **model.pipeline.components, **({"requires_safety_checker": False} if model.family == "sd15" else {})
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(model.pipeline.scheduler, scheduler)[1]
    sized = {"mask_image": pictures.mask, "width": SIZE[0], "height": SIZE[1]} if masked else {}
    return pipeline(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        image=pictures.init,
        strength=wanted.strength,
        num_inference_steps=wanted.num_inference_steps,
        guidance_scale=wanted.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(7),
        **sized,
    ).images[0]


@pytest.mark.parametrize("scheduler", [None, "Euler a", "Heun", "DPM++ 2M SDE", "LCM"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_picture_from_a_picture_is_diffusers_own_bit_for_bit(
    models: dict[str, LoadedModel], family: str, masked: bool, scheduler: str | None
) -> None:
    model = models[family]
    pictures = Pictures(noise(), mask() if masked else None)
    expected = diffusers_picture(model, pictures, scheduler)
    made = picture_of(events_of(model, pictures, scheduler=scheduler))
    assert np.array_equal(np.asarray(made), np.asarray(expected))


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize(("strength", "guidance"), [(1.0, 5.0), (0.3, 1.0)])
def test_full_strength_and_no_guidance_are_diffusers_own_too(
    models: dict[str, LoadedModel], masked: bool, strength: float, guidance: float
) -> None:
    changes = {"strength": strength, "guidance_scale": guidance}
    pictures = Pictures(noise(), mask() if masked else None)
    expected = diffusers_picture(models["sd15"], pictures, "Euler a", **changes)
    made = picture_of(events_of(models["sd15"], pictures, scheduler="Euler a", **changes))
    assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_a_tiny_autoencoder_starts_from_a_picture_too(models: dict[str, LoadedModel]) -> None:
    pictures = Pictures(noise(), mask())
    expected = diffusers_picture(models["tiny_vae"], pictures, "Euler a")
    made = picture_of(events_of(models["tiny_vae"], pictures, scheduler="Euler a"))
    assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_a_pipeline_with_a_loop_of_its_own_starts_from_a_picture_as_diffusers_sibling_of_it_does(
    models: dict[str, LoadedModel],
) -> None:
    model = models["sd3"]
    pipeline = diffusers.AutoPipelineForImage2Image.from_pipe(model.pipeline)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(model.pipeline.scheduler, None)[1]
    expected = pipeline(
        prompt="a red cat",
        negative_prompt="ugly",
        image=noise((64, 64)),
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(7),
        width=64,
        height=64,
    ).images[0]
    events = events_of(model, Pictures(noise((64, 64))), strength=0.5, num_inference_steps=4)
    assert np.array_equal(np.asarray(picture_of(events)), np.asarray(expected))
    assert [event.step for event in events if isinstance(event, Stepped)][-1] == 2


def test_the_part_of_the_steps_that_is_taken_counts_as_all_of_them(models: dict[str, LoadedModel]) -> None:
    events = events_of(models["sd15"], Pictures(noise()), num_inference_steps=10, strength=0.5)
    assert [(event.step, event.steps) for event in events if isinstance(event, Stepped)] == [
        (step, 5) for step in range(1, 6)
    ]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.meta.steps, last.meta.strength, last.meta.size) == (10, 0.5, "96x64")


def test_a_job_from_a_picture_can_be_previewed_and_leaves_what_it_has_drawn(
    models: dict[str, LoadedModel],
) -> None:
    engine = StepEngine(Shelf.holding(models["sd15"]))
    request = engine.resolve(params(), fallback_seed=1, pictures=Pictures(noise(), mask()))
    engine.admit("job", request)
    assert engine.preview("job") is None
    while not any(isinstance(event, Stepped) for event in engine.step()):
        pass
    preview = engine.preview("job")
    assert preview is not None
    left = engine.leave("job", keep_partial=True)
    assert left is not None
    assert left.picture is not None
    assert left.picture.size == SIZE


def test_jobs_with_and_without_pictures_share_their_steps_and_give_what_they_give_alone(
    models: dict[str, LoadedModel],
) -> None:
    model = models["sd15"]
    wishes = {
        "text": (params(initImage=None, strength=None, size="96x64"), Pictures()),
        "picture": (params(), Pictures(noise())),
        "mask": (params(maskImage="def", scheduler="Euler a"), Pictures(noise(), mask())),
    }
    alone = {}
    engine = StepEngine(Shelf.holding(model), capacity=3)
    for name, (wish, pictures) in wishes.items():
        engine.admit(name, engine.resolve(wish, fallback_seed=1, pictures=pictures))
        while engine.jobs:
            alone |= {e.job_id: np.asarray(e.picture) for e in engine.step() if isinstance(e, Finished)}
    for name, (wish, pictures) in wishes.items():
        engine.admit(name, engine.resolve(wish, fallback_seed=1, pictures=pictures))
    while engine.jobs:
        for event in engine.step():
            if isinstance(event, Finished):
                apart = np.asarray(event.picture, dtype=int) - alone[event.job_id].astype(int)
                assert np.abs(apart).max() <= 2  # levels of 255: in company sums are made in another order


def test_a_picture_is_drawn_at_its_own_size_unless_another_is_asked_for(
    models: dict[str, LoadedModel],
) -> None:
    pictures = Pictures(noise((101, 70)))
    own = picture_of(events_of(models["sd15"], pictures, num_inference_steps=2, strength=1.0))
    assert own.size == (100, 70)  # this model's autoencoder halves twice
    asked = picture_of(
        events_of(models["sd15"], pictures, num_inference_steps=2, strength=1.0, size="64x128")
    )
    assert asked.size == (64, 128)


def test_sizes_taken_from_a_picture_stay_within_what_can_be_asked_for() -> None:
    assert size_of(Image.new("RGB", (513, 700)), 8) == (512, 696)
    assert size_of(Image.new("RGB", (8192, 4096)), 8) == (4096, 2048)
    assert size_of(Image.new("RGB", (20, 700)), 8) == (64, 696)


def test_transparency_shows_white_and_a_transparent_mask_keeps_what_is_there(
    models: dict[str, LoadedModel],
) -> None:
    see_through = noise(mode="RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", SIZE, "white"), see_through).convert("RGB")
    plain = picture_of(events_of(models["sd15"], Pictures(on_white)))
    assert np.array_equal(
        np.asarray(picture_of(events_of(models["sd15"], Pictures(see_through)))), np.asarray(plain)
    )
    drawn_over = mask().convert("RGBA")
    drawn_over.putalpha(mask().convert("L"))
    clear = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    clear.alpha_composite(drawn_over)
    masked = picture_of(events_of(models["sd15"], Pictures(noise(), mask())))
    assert np.array_equal(
        np.asarray(picture_of(events_of(models["sd15"], Pictures(noise(), clear)))), np.asarray(masked)
    )


def test_a_strength_that_leaves_nothing_of_the_modes_own_steps_is_refused_by_name(
    models: dict[str, LoadedModel],
) -> None:
    engine = StepEngine(Shelf.holding(models["sd15"]))
    with pytest.raises(ReverieError) as caught:
        engine.resolve(
            params(num_inference_steps=None, strength=0.01), fallback_seed=1, pictures=Pictures(noise())
        )
    assert caught.value.code is ErrorCode.INVALID_FIELD
    assert caught.value.fields[0].loc == ("strength",)


def test_a_model_that_takes_no_pictures_says_so_naming_the_field(models: dict[str, LoadedModel]) -> None:
    class Unknown(type(models["sd3"].pipeline)):  # type: ignore[misc]  # a class known at run time only
        pass

    from dataclasses import replace

    pipeline = Unknown.__new__(Unknown)
    pipeline.__dict__ = models["sd3"].pipeline.__dict__
    model = replace(models["sd3"], pipeline=pipeline)
    engine = StepEngine(Shelf.holding(model))
    with pytest.raises(ReverieError) as caught:
        engine.resolve(params(), fallback_seed=1, pictures=Pictures(noise((64, 64))))
    assert caught.value.code is ErrorCode.INVALID_FIELD
    assert caught.value.fields[0].loc == ("initImage",)


@pytest.fixture(scope="module")
def masked_only(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, LoadedModel]:
    """Models whose UNets are made for masks, saved and loaded as their makers do."""
    found = {}
    for family in ("sd15", "sdxl"):
        plain = diffusers.DiffusionPipeline.from_pretrained(model_folders[family])
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel.from_config(plain.unet.config, in_channels=9)
        options = {"requires_safety_checker": False} if family == "sd15" else {}
        pipeline = PIPELINES[family, True](**(plain.components | {"unet": unet}), **options)
        folder = tmp_path_factory.mktemp("masked") / family
        pipeline.save_pretrained(folder)
        found[family] = load_pipeline(folder, device="cpu")
    return found


@pytest.mark.parametrize("strength", [0.65, 1.0])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_model_made_for_masks_draws_as_diffusers_does(
    masked_only: dict[str, LoadedModel], family: str, strength: float
) -> None:
    model = masked_only[family]
    assert model.family == family
    pictures = Pictures(noise(), mask())
    expected = diffusers_picture(model, pictures, "Euler a", strength=strength)
    events = events_of(model, pictures, scheduler="Euler a", strength=strength)
    assert np.array_equal(np.asarray(picture_of(events)), np.asarray(expected))


def test_a_model_made_for_masks_refuses_what_has_none(masked_only: dict[str, LoadedModel]) -> None:
    engine = StepEngine(Shelf.holding(masked_only["sd15"]))
    for wish, pictures, name in (
        (params(initImage=None, strength=None), Pictures(), "initImage"),
        (params(), Pictures(noise()), "maskImage"),
    ):
        with pytest.raises(ReverieError) as caught:
            engine.resolve(wish, fallback_seed=1, pictures=pictures)
        assert caught.value.fields[0].loc == (name,)


def test_a_failure_while_the_picture_is_encoded_fails_the_job_alone(models: dict[str, LoadedModel]) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = models["sd15"].pipeline.vae.encoder.register_forward_pre_hook(fail)
    try:
        last = events_of(models["sd15"], Pictures(noise()))[-1]
    finally:
        handle.remove()
    assert isinstance(last, Failed)
    assert last.code is ErrorCode.OUT_OF_MEMORY
    assert picture_of(events_of(models["sd15"], Pictures(noise())))
