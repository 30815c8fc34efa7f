"""Many jobs at once: what shares a step, who goes first, and that it makes no difference to the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Event, Failed, Finished, Started, Stepped
from reverie_inference.engine.request import Request
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import GenerateParams, Lane, Phase

#: How far a picture made in company may be from the same picture made alone, in levels of 255.
TOLERANCE = 2
SCHEDULERS = (
    "DDIM",
    "Euler",
    "Euler a",
    "Heun",
    "DPM++ 2M",
    "DPM++ 2M Karras",
    "DPM++ 2M SDE",
    "DPM2 a",
    "UniPC",
    "LCM",
    "PLMS",
    "DDPM",
)


def request_for(model: LoadedModel, **params: Any) -> Request:
    defaults = {"prompt": "a red cat", "size": "64x64", "num_inference_steps": 3, "seed": 7}
    request = StepEngine(Shelf.holding(model)).resolve(
        GenerateParams(**{**defaults, **params}), fallback_seed=1
    )
    assert isinstance(request, Request)
    return request


def run(engine: StepEngine) -> list[Event]:
    events = []
    while engine.jobs:
        events += engine.step()
    return events


def make(model: LoadedModel, **params: Any) -> Image.Image:
    engine = StepEngine(Shelf.holding(model))
    engine.admit("job", request_for(model, **params))
    last = run(engine)[-1]
    assert isinstance(last, Finished), last
    return last.picture


def pictures(events: list[Event]) -> dict[str, Image.Image]:
    assert not [event for event in events if isinstance(event, Failed)]
    return {event.job_id: event.picture for event in events if isinstance(event, Finished)}


def far_apart(first: Image.Image, second: Image.Image) -> int:
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


def stepped(events: list[Event]) -> set[str]:
    return {event.job_id for event in events if isinstance(event, Stepped)}


def until_stepped(engine: StepEngine, job_id: str) -> None:
    for _ in range(100):
        if job_id in stepped(engine.step()):
            return
    raise AssertionError(f"{job_id} takes no step")


@contextmanager
def evaluations(model: LoadedModel) -> Iterator[list[int]]:
    """Rows of each evaluation of the network."""
    seen: list[int] = []
    network = getattr(model.pipeline, "unet", None) or model.pipeline.transformer

    def note(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        latents = arguments[0] if arguments else named["hidden_states"]
        seen.append(latents.shape[0])

    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_picture_made_in_company_is_that_made_alone(models: dict[str, LoadedModel], scheduler: str) -> None:
    model = models["sd15"]
    jobs = {
        "guided": {"seed": 1, "guidance_scale": 5.0, "scheduler": scheduler},
        "plain": {"seed": 2, "guidance_scale": 1.0, "scheduler": scheduler, "num_inference_steps": 5},
        "refusing": {"seed": 3, "prompt": "a dog", "negative_prompt": "ugly", "scheduler": "Euler"},
    }
    engine = StepEngine(Shelf.holding(model), capacity=8)
    for job_id, params in jobs.items():
        engine.admit(job_id, request_for(model, **params))
    with evaluations(model) as rows:
        together = pictures(run(engine))
    assert max(rows) > 2
    assert all(
        far_apart(together[job_id], make(model, **params)) <= TOLERANCE for job_id, params in jobs.items()
    )


@pytest.mark.parametrize("family", ["sdxl", "sd3", "tiny_vae"])
def test_every_family_shares_its_steps(models: dict[str, LoadedModel], family: str) -> None:
    model = models[family]
    engine = StepEngine(Shelf.holding(model), capacity=8)
    for seed in range(3):
        engine.admit(str(seed), request_for(model, seed=seed, guidance_scale=3.0))
    with evaluations(model) as rows:
        together = pictures(run(engine))
    assert max(rows) > 2
    assert all(
        far_apart(together[str(seed)], make(model, seed=seed, guidance_scale=3.0)) <= TOLERANCE
        for seed in range(3)
    )


def test_a_job_joins_at_any_step_and_the_others_do_not_notice(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=8)
    engine.admit("first", request_for(model, num_inference_steps=6))
    until_stepped(engine, "first")
    engine.admit("second", request_for(model, seed=9, num_inference_steps=3))
    events = run(engine)
    made = pictures(events)
    assert far_apart(made["first"], make(model, num_inference_steps=6)) <= TOLERANCE
    assert far_apart(made["second"], make(model, seed=9, num_inference_steps=3)) <= TOLERANCE


def test_pictures_of_other_sizes_and_models_do_not_share_a_step(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=8)
    engine.admit("small", request_for(model))
    engine.admit("large", request_for(model, size="96x64"))
    engine.admit("other", request_for(models["sdxl"]))
    while engine.jobs:
        assert len(stepped(engine.step())) <= 1


def test_an_urgent_job_goes_first_from_the_next_step_and_the_displaced_one_gives_the_same_bits(
    models: dict[str, LoadedModel],
) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=1)
    engine.admit("dream", request_for(model, scheduler="Euler a"), lane=Lane.BACKGROUND)
    until_stepped(engine, "dream")
    engine.admit("urgent", request_for(model, seed=3), lane=Lane.URGENT)
    seen: list[Event] = []
    while "urgent" in engine.jobs:
        seen += engine.step()
    assert "dream" not in stepped(seen)
    made = pictures(seen + run(engine))
    assert far_apart(made["dream"], make(model, scheduler="Euler a")) == 0


def test_a_change_of_lane_acts_at_the_next_step(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=1)
    engine.admit("first", request_for(model, num_inference_steps=9))
    engine.admit("second", request_for(model, num_inference_steps=9))
    until_stepped(engine, "first")
    engine.reprioritise("second", Lane.URGENT)
    seen: list[Event] = []
    while "second" in engine.jobs:
        seen += engine.step()
    assert stepped(seen) == {"second"}
    engine.reprioritise("nobody", Lane.URGENT)


def test_a_loop_of_a_pipelines_own_is_finished_before_the_urgent_picture_that_needs_it(
    models: dict[str, LoadedModel],
) -> None:
    model = models["own_loop"]
    engine = StepEngine(Shelf.holding(model), capacity=2)
    engine.admit("background", request_for(model), lane=Lane.BACKGROUND)
    until_stepped(engine, "background")
    engine.admit("urgent", request_for(model, seed=2), lane=Lane.URGENT)
    made = pictures(run(engine))
    assert list(made) == ["background", "urgent"]
    assert far_apart(made["background"], make(model)) == 0
    assert far_apart(made["urgent"], make(model, seed=2)) == 0


def test_who_waits_for_a_pipelines_own_loop_takes_no_room_from_whoever_is_in_it(
    models: dict[str, LoadedModel],
) -> None:
    model = models["own_loop"]
    engine = StepEngine(Shelf.holding(model), capacity=1)
    engine.admit("first", request_for(model))
    engine.admit("second", request_for(model, seed=2), lane=Lane.URGENT)
    until_stepped(engine, "second")
    engine.reprioritise("first", Lane.URGENT)  # it came before the one that it has to wait for
    events = [event for _ in range(20) for event in engine.step()]
    assert list(pictures(events)) == ["second", "first"]


def test_a_batch_that_does_not_fit_is_made_smaller_and_nobody_fails(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=8)
    for seed in range(3):
        engine.admit(str(seed), request_for(model, seed=seed, guidance_scale=1.0))

    def refuse(_module: Any, arguments: tuple[Any, ...]) -> None:
        if arguments[0].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = model.pipeline.unet.register_forward_pre_hook(refuse)
    try:
        made = pictures(run(engine))
    finally:
        handle.remove()
    assert len(made) == 3


def test_one_that_fails_takes_nobody_with_it(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=8)
    for seed in range(3):
        engine.admit(str(seed), request_for(model, seed=seed))
    poisoned = request_for(model, seed=5)
    poisoned.scheduler.step = lambda *_, **__: 1 / 0
    engine.admit("poisoned", poisoned)
    events = run(engine)
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert (failed.job_id, failed.code) == ("poisoned", ErrorCode.INFERENCE_FAILED)
    assert {event.job_id for event in events if isinstance(event, Finished)} == {"0", "1", "2"}


def test_the_same_prompt_is_encoded_once(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    calls = []
    handle = model.pipeline.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        for seed in range(3):
            make(model, prompt="a prompt of its own", seed=seed)
    finally:
        handle.remove()
    assert len(calls) <= 2  # the prompt and the negative one


def test_jobs_that_end_together_are_decoded_together(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=8)
    for seed in range(2):
        engine.admit(str(seed), request_for(model, seed=seed))
    batches = []
    original = model.pipeline.vae.decode
    model.pipeline.vae.decode = lambda latents, **named: (
        batches.append(latents.shape[0]),
        original(latents, **named),
    )[1]
    try:
        run(engine)
    finally:
        del model.pipeline.vae.decode
    assert batches == [2]


def test_a_displaced_job_tells_where_it_is(models: dict[str, LoadedModel]) -> None:
    model = models["sd15"]
    engine = StepEngine(Shelf.holding(model), capacity=1)
    engine.admit("dream", request_for(model), lane=Lane.BACKGROUND)
    until_stepped(engine, "dream")
    engine.admit("urgent", request_for(model), lane=Lane.URGENT)
    assert engine.step() == [Started("urgent", Phase.ENCODING)]
    assert engine.preview("dream") is not None
    left = engine.leave("dream", keep_partial=True)
    assert left is not None
    assert left.picture is not None
