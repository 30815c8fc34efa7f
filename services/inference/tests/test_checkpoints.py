"""A job that goes on from where another attempt was: the same picture, bit for bit, without the steps again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reverie_inference.engine.checkpoint import UnusableCheckpoint, decode_state
from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Checkpointed, Event, Finished, Stepped
from reverie_inference.engine.pictures import Pictures
from reverie_inference.engine.schedulers import RECIPES
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_protocol.jobs import GenerateParams, Variation

STEPS, EVERY = 7, 2


def engine_of(model: LoadedModel) -> StepEngine:
    return StepEngine(Shelf.holding(model), checkpoint_steps=EVERY)


def events_of(
    model: LoadedModel, *, checkpoint: bytes = b"", pictures: Pictures | None = None, **params: Any
) -> list[Event]:
    defaults = {"prompt": "a red cat", "size": "64x64", "num_inference_steps": STEPS, "seed": 7}
    engine = engine_of(model)
    wish = GenerateParams(**{**defaults, **params})
    request = engine.resolve(wish, fallback_seed=1, pictures=pictures or Pictures())
    engine.admit("job", request, checkpoint=checkpoint)
    events: list[Event] = []
    while engine.jobs:
        events += engine.step()
    return events


def picture_of(events: list[Event]) -> np.ndarray:
    assert isinstance(events[-1], Finished), events[-1]
    return np.asarray(events[-1].picture)


def checkpoints_of(events: list[Event]) -> list[Checkpointed]:
    return [event for event in events if isinstance(event, Checkpointed)]


def steps_of(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, Stepped)]


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [*(("sd15", name) for name in (None, *list(RECIPES)[::4])), ("sdxl", "Euler a"), ("sd3", None)],
)
def test_an_attempt_goes_on_from_a_checkpoint_with_the_same_picture(
    models: dict[str, LoadedModel], family: str, scheduler: str | None
) -> None:
    whole = events_of(models[family], scheduler=scheduler)
    checkpoint = checkpoints_of(whole)[-1]
    again = events_of(models[family], scheduler=scheduler, checkpoint=checkpoint.content)
    assert np.array_equal(picture_of(again), picture_of(whole))
    assert steps_of(again)[0] >= checkpoint.step
    assert len(steps_of(again)) < len(steps_of(whole))


def test_a_checkpoint_is_made_every_few_steps_and_not_after_the_last(
    models: dict[str, LoadedModel],
) -> None:
    made = [
        checkpoint.step for checkpoint in checkpoints_of(events_of(models["sd15"], num_inference_steps=6))
    ]
    assert made == [2, 4]


@pytest.mark.parametrize("scheduler", ["Heun", "DPM2 a", "PLMS"])
def test_a_step_that_takes_two_evaluations_makes_one_checkpoint(
    models: dict[str, LoadedModel], scheduler: str
) -> None:
    made = [checkpoint.step for checkpoint in checkpoints_of(events_of(models["sd15"], scheduler=scheduler))]
    assert made == [2, 4, 6]


def test_a_checkpoint_that_cannot_be_made_costs_the_picture_nothing(
    models: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = picture_of(events_of(models["sd15"]))
    monkeypatch.setattr("reverie_inference.engine.sampling.encode_state", lambda *_, **__: 1 / 0)
    events = events_of(models["sd15"])
    assert not checkpoints_of(events)
    assert np.array_equal(picture_of(events), expected)


def test_a_picture_that_starts_from_another_goes_on_too(models: dict[str, LoadedModel]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    pictures = Pictures(Image.fromarray(noise))
    params = {"initImage": "abc", "strength": 1.0, "scheduler": "Euler a"}
    whole = events_of(models["sd15"], pictures=pictures, **params)
    checkpoint = checkpoints_of(whole)[0].content
    again = events_of(models["sd15"], pictures=pictures, checkpoint=checkpoint, **params)
    assert np.array_equal(picture_of(again), picture_of(whole))
    assert len(steps_of(again)) < len(steps_of(whole))


@pytest.mark.parametrize(
    "other", [{"seed": 8}, {"prompt": "a dog"}, {"scheduler": "Euler"}, {"guidance_scale": 2.0}]
)
def test_a_checkpoint_of_another_job_is_not_used(models: dict[str, LoadedModel], other: Any) -> None:
    checkpoint = checkpoints_of(events_of(models["sd15"]))[0].content
    again = events_of(models["sd15"], checkpoint=checkpoint, **other)
    assert np.array_equal(picture_of(again), picture_of(events_of(models["sd15"], **other)))
    assert len(steps_of(again)) == STEPS


def test_a_checkpoint_of_other_weights_is_not_used(models: dict[str, LoadedModel]) -> None:
    checkpoint = checkpoints_of(events_of(models["tiny_vae"]))[0].content
    assert len(steps_of(events_of(models["sd15"], checkpoint=checkpoint))) == STEPS


@given(st.binary(max_size=300), st.integers(0, 5000))
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_no_checkpoint_are_refused(noise: bytes, cut: int) -> None:
    for content in (noise, noise[:8] + b"{}" + noise[8:], b"\x02\x00\x00\x00\x00\x00\x00\x00{}"):
        with pytest.raises(UnusableCheckpoint):
            decode_state(content[:cut], fits="", device=torch.device("cpu"))


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(models: dict[str, LoadedModel]) -> None:
    checkpoint = checkpoints_of(events_of(models["sd15"]))[0].content
    for damaged in (checkpoint[:-10], checkpoint[:40], b"x" + checkpoint):
        again = events_of(models["sd15"], checkpoint=damaged)
        assert len(steps_of(again)) == STEPS


def test_variations_move_the_starting_noise_by_their_weight(models: dict[str, LoadedModel]) -> None:
    def made(*variations: tuple[int, float], seed: int = 7) -> np.ndarray:
        return picture_of(
            events_of(models["sd15"], seed=seed, variations=tuple(Variation(*each) for each in variations))
        ).astype(int)

    plain, other = made(), made(seed=8)
    assert np.array_equal(made((8, 0.0)), plain)
    assert np.array_equal(made((8, 1.0)), other)
    near, far = (np.abs(made((8, weight)) - plain).mean() for weight in (0.1, 0.6))
    assert 0 < near < far
