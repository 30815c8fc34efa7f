"""Jobs that are all super-resolution: in the engine, and from the record to the stored picture."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Event, Finished, Stepped, Tiled
from reverie_inference.engine.pictures import Pictures
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_inference.upscalers.compact import CompactNetwork
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobState,
    JobType,
    Lane,
    Phase,
    Progress,
    SuperResolutionParams,
)
from reverie_protocol.subjects import job_progress

BUILT_IN = str(Path(__file__).parents[3] / "models" / "builtin" / "super-resolution")


def network(scale: int = 2) -> CompactNetwork:
    torch.manual_seed(4)
    made = CompactNetwork(scale, width=6, depth=1).eval()
    made.name = f"test-x{scale}"
    return made


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (size[1], size[0], len(mode)), dtype="u1")
    return Image.fromarray(values)


def engine_with(models: dict[str, LoadedModel], *scales: int, capacity: int = 1) -> StepEngine:
    upscalers = {scale: network(scale) for scale in scales}
    return StepEngine(Shelf.holding(models["sd15"]), upscalers=upscalers, capacity=capacity)


def events_of(engine: StepEngine, image: Image.Image, **params: Any) -> list[Event]:
    wish = SuperResolutionParams(fileRef="abc", **params)
    engine.admit("job", engine.resolve(wish, fallback_seed=0, pictures=Pictures(image)))
    events = []
    while engine.jobs:
        events += engine.step()
    return events


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished), events[-1]
    return events[-1]


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_each_pass_enlarges_what_the_last_one_made(models: dict[str, LoadedModel], passes: int) -> None:
    image = noise((20, 12))
    done = finished(events_of(engine_with(models, 2), image, magnitude=passes))
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    for _ in range(passes):
        values = network().upscale(values.float() / 255).mul(255).round().to(torch.uint8)
    assert np.array_equal(np.asarray(done.picture), values[0].permute(1, 2, 0).numpy())
    assert (done.meta.sr, done.meta.sr_model, done.meta.sr_passes, done.meta.sr_scale_per_pass) == (
        True,
        "test-x2",
        passes,
        2,
    )
    assert (done.meta.native_size, done.meta.size) == ("20x12", f"{20 * 2**passes}x{12 * 2**passes}")


def test_every_tile_is_a_step_and_is_counted_over_all_passes(models: dict[str, LoadedModel]) -> None:
    events = events_of(engine_with(models, 2), noise((520, 8)), magnitude=2)
    told = [(event.tile, event.tiles) for event in events if isinstance(event, Tiled)]
    assert told == [(tile, 5) for tile in range(6)]  # 520 pixels are two tiles, 1040 are three


def test_transparency_is_enlarged_beside_the_colours(models: dict[str, LoadedModel]) -> None:
    image = noise((24, 10), "RGBA")
    done = finished(events_of(engine_with(models, 2), image, magnitude=1)).picture
    plain = finished(events_of(engine_with(models, 2), image.convert("RGB"), magnitude=1)).picture
    assert done.mode == "RGBA"
    assert np.array_equal(np.asarray(done)[..., :3], np.asarray(plain))
    grey = Image.merge("RGB", [image.getchannel("A")] * 3)
    alpha = np.asarray(finished(events_of(engine_with(models, 2), grey, magnitude=1)).picture)
    assert np.abs(np.asarray(done)[..., 3] - alpha.mean(-1)).max() <= 0.5
    image.putalpha(255)
    opaque = finished(events_of(engine_with(models, 2), image, magnitude=1)).picture
    assert (opaque.mode, opaque.getchannel("A").getextrema()) == ("RGBA", (255, 255))


def test_without_a_network_for_two_the_smallest_one_makes_the_passes(models: dict[str, LoadedModel]) -> None:
    done = finished(events_of(engine_with(models, 4), noise((10, 10)), magnitude=2))
    assert done.picture.size == (160, 160)
    assert (done.meta.sr_model, done.meta.sr_scale_per_pass) == ("test-x4", 4)


def test_a_result_beyond_what_is_made_and_no_network_are_refused(models: dict[str, LoadedModel]) -> None:
    with pytest.raises(ReverieError) as caught:
        events_of(engine_with(models, 2), noise((2049, 4)), magnitude=2)
    assert caught.value.code is ErrorCode.INVALID_FIELD
    assert caught.value.fields[0].loc == ("magnitude",)
    with pytest.raises(ReverieError) as caught:
        events_of(engine_with(models), noise((4, 4)))
    assert caught.value.code is ErrorCode.SUPERRES_DISABLED


def test_it_makes_way_between_two_tiles_for_a_more_urgent_drawing_and_leaves_there_too(
    models: dict[str, LoadedModel],
) -> None:
    engine = engine_with(models, 2, capacity=2)
    wish = SuperResolutionParams(fileRef="abc", magnitude=1)
    engine.admit("larger", engine.resolve(wish, fallback_seed=0, pictures=Pictures(noise((1600, 8)))))
    before = [event for _ in range(2) for event in engine.step()]
    assert [event.tile for event in before if isinstance(event, Tiled)] == [0, 1]
    drawn = GenerateParams(prompt="x", size="64x64", num_inference_steps=3)
    engine.admit("drawn", engine.resolve(drawn, fallback_seed=0), lane=Lane.URGENT)
    meanwhile: list[Event] = []
    while "drawn" in engine.jobs:
        meanwhile += engine.step()
    assert {event.job_id for event in meanwhile} == {"drawn"}
    assert sum(isinstance(event, Stepped) for event in meanwhile) >= 3
    assert [(type(event), event.job_id) for event in engine.step()] == [(Tiled, "larger")]
    left = engine.leave("larger", keep_partial=True)
    assert left is not None
    assert left.picture is None
    assert engine.jobs == ()


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


async def submitted(world: Any, key: str, **params: Any) -> str:
    now = time.time()
    job = Job(
        id=f"sr-{time.monotonic_ns()}",
        owner="somebody",
        type=JobType.SR,
        state=JobState.QUEUED,
        position=now,
        params=SuperResolutionParams(fileRef=key, **params),
        created_at=now,
        enqueued_at=now,
        updated_at=now,
    )
    job_id: str = (await world.store.submit(job)).stored.job.id
    return job_id


async def test_a_stored_picture_becomes_a_larger_one_upright_in_the_format_that_was_asked_for(
    world: Any, models: Any
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    key = await world.storage.put(png(noise((40, 20), "RGBA"), exif=exif), content_type="image/png")
    async with world.worker(models["sd15"], super_resolution=BUILT_IN):
        job = await world.ended(await submitted(world, key, magnitude=1, out_format="jpeg", quality=50))
        assert job.state is JobState.COMPLETED, job.error
        (output,) = job.outputs
        assert (output.content_type, output.width, output.height) == ("image/jpeg", 40, 80)
        picture = await world.picture(output.key)
        assert (picture.format, picture.size) == ("JPEG", (40, 80))
        assert (job.meta.sr, job.meta.sr_model, job.meta.sr_format) == (True, "reverie-x2", "jpeg")
        job = await world.ended(await submitted(world, key, magnitude=1))
        picture = await world.picture(job.outputs[0].key)
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (40, 80))


async def test_progress_counts_tiles_and_a_cancelled_job_ends_between_two(world: Any, models: Any) -> None:
    key = await world.storage.put(png(noise((2048, 1100))), content_type="image/png")
    heard = await world.listen(job_progress("*"))
    async with world.worker(models["sd15"], super_resolution=BUILT_IN):
        job_id = await submitted(world, key, magnitude=2)
        while True:
            async with asyncio.timeout(60):
                progress = msgspec.json.decode((await heard.get()).data, type=Progress)
            if progress.step:
                break
        assert (progress.phase, progress.steps) == (Phase.UPSCALING, 12 + 40)
        assert 0 < progress.progress < 0.5
        await world.cancel(job_id)
        job = await world.ended(job_id)
        assert (job.state, job.outputs) == (JobState.CANCELLED, ())


@pytest.mark.parametrize("content", [None, b"no picture"])
async def test_a_picture_that_is_gone_or_none_fails_the_job_by_name_and_keeps_no_slot(
    world: Any, models: Any, content: bytes | None
) -> None:
    key = "0" * 64 + ".png"
    if content is not None:
        key = await world.storage.put(content, content_type="image/png")
    async with world.worker(models["sd15"], super_resolution=BUILT_IN, slots=1) as worker:
        job = await world.ended(await submitted(world, key))
        expected = ErrorCode.FILE_NOT_FOUND if content is None else ErrorCode.UNSUPPORTED_MEDIA_TYPE
        assert (job.state, job.error.code) == (JobState.FAILED, expected)
        assert job.error.message.startswith("fileRef: ")
        drawn = await world.ended(await world.submit(initImage=key, strength=0.9))
        assert (drawn.state, drawn.error.code) == (JobState.FAILED, expected)
        assert drawn.error.message.startswith("initImage: ")
        assert (await world.ended(await world.submit())).state is JobState.COMPLETED
        assert not worker._runs


async def test_a_job_draws_from_stored_pictures_and_says_how_far_it_went(world: Any, models: Any) -> None:
    init = await world.storage.put(png(noise((96, 64))), content_type="image/png")
    mask = Image.new("L", (96, 64))
    mask.paste(255, (0, 0, 48, 64))
    masked = await world.storage.put(png(mask), content_type="image/png")
    async with world.worker(models["sd15"]) as worker:
        assert worker.standing.record().modes[models["sd15"].mode].mask_image
        params = {"size": None, "num_inference_steps": 4, "strength": 0.5}
        job = await world.ended(await world.submit(initImage=init, maskImage=masked, **params))
        assert job.state is JobState.COMPLETED, job.error
        assert (job.meta.size, job.meta.strength) == ("96x64", 0.5)
        picture = await world.picture(job.outputs[0].key)
        assert picture.size == (96, 64)
        assert "Denoising strength: 0.5" in picture.info["parameters"]
