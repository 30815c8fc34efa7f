"""Several modes on one engine: which models are in memory, and what LoRAs do to a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from diffusers import StableDiffusionPipeline
from msgspec.structs import replace
from PIL import Image
from safetensors.torch import load_file, save_file

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Event, Finished, Stepped
from reverie_inference.engine.request import Request
from reverie_inference.families.registry import CALLBACK
from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import MemoryRule, Shelf, free_bytes
from reverie_inference.modes.catalogue import Catalogue, Lora, Mode
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, Lane, StyleLora
from reverie_testing.tiny_models import tiny_lora, tiny_sd_pipeline


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shelf")
    found = {name: tiny_sd_pipeline(root / name, seed=seed) for seed, name in enumerate("abc")}
    found["lora"] = tiny_lora(found["a"], root / "detail.safetensors", seed=5)
    found["other"] = tiny_lora(found["a"], root / "ink.safetensors", seed=6)
    return found


class Loads:
    """Loads as a worker does, and notes what."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, reference: str) -> LoadedModel:
        self.made.append(Path(reference).name)
        return load_pipeline(reference, device="cpu", offline=True)


def mode(folders: dict[str, Path], name: str, **more: Any) -> Mode:
    return Mode(name, str(folders[name[0]]), name, **more)


def shelf_of(*modes: Mode, styles: dict[str, Lora] | None = None, most: int = 0) -> tuple[Shelf, Loads]:
    loads = Loads()
    catalogue = Catalogue(modes[0].name, {mode.name: mode for mode in modes}, styles or {})
    return Shelf(catalogue, loads, MemoryRule(most, 0)), loads


def lora(folders: dict[str, Path], name: str, strength: float) -> Lora:
    return Lora(name, str(folders[name]), strength, folders[name].name)


def picture(
    engine: StepEngine, job_id: str = "job", *, lane: Lane = Lane.NORMAL, **params: Any
) -> Image.Image:
    defaults: dict[str, Any] = {"prompt": "a red cat", "num_inference_steps": 2, "seed": 7}
    request = engine.resolve(GenerateParams(**{**defaults, **params}), fallback_seed=1)
    engine.admit(job_id, request, lane=lane)
    while True:
        for event in engine.step():
            if isinstance(event, Finished):
                return event.picture


def by_diffusers(folder: Path, *loras: tuple[Path, float]) -> Image.Image:
    """The same picture by diffusers alone."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    for path, _ in loras:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=path.stem)
    if loras:
        pipeline.set_adapters([path.stem for path, _ in loras], [strength for _, strength in loras])
    generator = torch.Generator("cpu").manual_seed(7)
    return pipeline("a red cat", num_inference_steps=2, guidance_scale=7.5, generator=generator).images[0]


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_a_mode_wears_its_loras_with_their_strengths_as_diffusers_does(folders: dict[str, Path]) -> None:
    worn = (lora(folders, "lora", 0.8), lora(folders, "other", -0.5))
    shelf, _ = shelf_of(mode(folders, "a", loras=worn))
    expected = by_diffusers(folders["a"], (folders["lora"], 0.8), (folders["other"], -0.5))
    assert same(picture(StepEngine(shelf)), expected)
    assert not same(expected, by_diffusers(folders["a"]))


def test_modes_of_one_model_share_its_weights_and_none_leaves_a_trace_on_another(
    folders: dict[str, Path],
) -> None:
    shelf, loads = shelf_of(
        mode(folders, "a"),
        mode(folders, "a strong", loras=(lora(folders, "lora", 1.0),)),
        mode(folders, "a weak", loras=(lora(folders, "lora", 0.25),)),
    )
    engine = StepEngine(shelf)
    plain = by_diffusers(folders["a"])
    assert same(picture(engine), plain)
    assert same(picture(engine, mode="a strong"), by_diffusers(folders["a"], (folders["lora"], 1.0)))
    assert same(picture(engine, mode="a weak"), by_diffusers(folders["a"], (folders["lora"], 0.25)))
    assert same(picture(engine), plain)
    assert loads.made == ["a"]


def test_jobs_that_run_together_each_wear_their_own(folders: dict[str, Path]) -> None:
    shelf, _ = shelf_of(mode(folders, "a"), mode(folders, "a strong", loras=(lora(folders, "lora", 1.0),)))
    engine = StepEngine(shelf, capacity=2)
    for job_id in ("a", "a strong"):
        params = GenerateParams(prompt="a red cat", num_inference_steps=2, seed=7, mode=job_id)
        engine.admit(job_id, engine.resolve(params, fallback_seed=1))
    pictures: dict[str, Image.Image] = {}
    while engine.jobs:
        pictures |= {e.job_id: e.picture for e in engine.step() if isinstance(e, Finished)}
    assert same(pictures["a"], by_diffusers(folders["a"]))
    assert same(pictures["a strong"], by_diffusers(folders["a"], (folders["lora"], 1.0)))


def test_a_style_is_as_strong_as_its_level(folders: dict[str, Path]) -> None:
    shelf, _ = shelf_of(mode(folders, "a"), styles={"ink": lora(folders, "other", 1.0)})
    engine = StepEngine(shelf)
    assert same(
        picture(engine, style_lora=StyleLora("ink", 4)),
        by_diffusers(folders["a"], (folders["other"], 0.5)),
    )
    assert same(picture(engine, style_lora=StyleLora("ink", 0)), by_diffusers(folders["a"]))


def test_a_lora_for_another_model_fails_its_job_and_leaves_the_model_as_it_was(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    weights = load_file(folders["lora"])
    wider = {
        name: torch.cat([value, value], dim=1) if ".lora_A." in name else value
        for name, value in weights.items()
    }
    wrong = {"wider": wider, "stranger": {f"nothing.{name}": value for name, value in weights.items()}}
    shelf, _ = shelf_of(
        mode(folders, "a"),
        *(
            mode(folders, f"a {name}", loras=(Lora(name, str(tmp_path / f"{name}.safetensors"), 1.0, name),))
            for name in wrong
        ),
    )
    engine = StepEngine(shelf)
    for name, content in wrong.items():
        save_file(content, tmp_path / f"{name}.safetensors")
        params = GenerateParams(prompt="x", num_inference_steps=1, mode=f"a {name}")
        engine.admit("job", engine.resolve(params, fallback_seed=1))
        events = [event for _ in range(2) for event in engine.step()]
        assert events[-1].code is ErrorCode.MODEL_LOAD_FAILED
        assert f"The LoRA {name} cannot be loaded" in events[-1].message
        assert "fit" in events[-1].message
        assert same(picture(engine), by_diffusers(folders["a"]))


def test_room_for_a_model_is_looked_for_where_it_goes() -> None:
    memory = psutil.virtual_memory()
    assert 0 < free_bytes(torch.device("cpu")) <= memory.total


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_lora_that_cannot_be_had_fails_its_job_and_leaves_the_model_as_it_was(
    folders: dict[str, Path], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    broken = Lora("broken", str(path), 1.0, path.name)
    shelf, _ = shelf_of(mode(folders, "a"), mode(folders, "a broken", loras=(broken,)))
    engine = StepEngine(shelf)
    params = GenerateParams(prompt="x", num_inference_steps=1, mode="a broken")
    engine.admit("job", engine.resolve(params, fallback_seed=1))
    events = [event for _ in range(2) for event in engine.step()]
    assert "broken.safetensors" in events[-1].message
    assert str(tmp_path) not in events[-1].message
    assert same(picture(engine), by_diffusers(folders["a"]))


def test_the_longest_unused_model_leaves_first_and_a_pinned_one_never(folders: dict[str, Path]) -> None:
    shelf, loads = shelf_of(mode(folders, "a", pinned=True), mode(folders, "b"), mode(folders, "c"), most=2)
    engine = StepEngine(shelf)
    for name in ("a", "b", "c", "a", "b"):
        picture(engine, mode=name)
    assert loads.made == ["a", "b", "c", "b"]
    assert [model.mode for model in shelf.resident] == ["a", "b"]


def test_a_model_in_use_stays_until_its_job_has_ended(folders: dict[str, Path]) -> None:
    shelf, _ = shelf_of(mode(folders, "a"), mode(folders, "b"), mode(folders, "c"), most=1)
    engine = StepEngine(shelf, capacity=2)
    params = GenerateParams(prompt="a red cat", num_inference_steps=2, seed=7, mode="a")
    engine.admit("first", engine.resolve(params, fallback_seed=1))
    engine.resolve(replace(params, mode="b"), fallback_seed=1)
    assert [model.mode for model in shelf.resident] == ["a", "b"]
    while engine.jobs:
        engine.step()
    engine.resolve(replace(params, mode="c"), fallback_seed=1)
    assert [model.mode for model in shelf.resident] == ["c"]


def test_the_model_of_a_job_that_waits_for_room_stays_too(folders: dict[str, Path]) -> None:
    shelf, loads = shelf_of(mode(folders, "a"), mode(folders, "b"), mode(folders, "c"), most=1)
    engine = StepEngine(shelf, capacity=1)
    params = GenerateParams(prompt="a red cat", num_inference_steps=1, seed=7)
    for name in "abc":
        engine.admit(name, engine.resolve(replace(params, mode=name), fallback_seed=1))
    assert [model.mode for model in shelf.resident] == ["a", "b", "c"]
    left = engine.leave("b")
    assert left is not None
    assert left.picture is None
    while engine.jobs:
        engine.step()
    assert loads.made == ["a", "b", "c"]


def test_a_model_leaves_where_memory_is_short(folders: dict[str, Path]) -> None:
    shelf, loads = shelf_of(mode(folders, "a"), mode(folders, "b"))
    shelf._rule = MemoryRule(0, 1 << 60)  # no machine has that much to spare
    engine = StepEngine(shelf)
    for name in ("a", "b", "a"):
        picture(engine, mode=name)
    assert loads.made == ["a", "b", "a"]


def test_a_model_that_cannot_be_loaded_is_tried_once_and_says_why(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"no model")
    broken = Mode("broken", str(path), path.name)
    shelf, loads = shelf_of(mode(folders, "a"), broken)
    engine = StepEngine(shelf)
    for _ in range(2):
        with pytest.raises(ReverieError) as caught:
            engine.resolve(GenerateParams(prompt="x", mode="broken"), fallback_seed=1)
        assert caught.value.code is ErrorCode.MODEL_LOAD_FAILED
    assert loads.made == ["broken.safetensors"]
    assert shelf.failure_of(broken)
    picture(engine)


def test_a_switch_changes_the_mode_of_jobs_that_name_none_and_a_failed_one_nothing(
    folders: dict[str, Path],
) -> None:
    missing = Mode("missing", "/nowhere", "nowhere", missing="the model nowhere is not there")
    shelf, _ = shelf_of(mode(folders, "a"), mode(folders, "b"), missing)
    engine = StepEngine(shelf)
    engine.switch("b")
    assert same(picture(engine), by_diffusers(folders["b"]))
    with pytest.raises(ReverieError, match="is not there"):
        engine.switch("missing")
    with pytest.raises(ReverieError, match="a, b, missing"):
        engine.switch("unknown")
    assert engine.mode == "b"


def test_other_modes_take_the_place_of_those_before(folders: dict[str, Path]) -> None:
    shelf, loads = shelf_of(mode(folders, "a"), mode(folders, "b"))
    engine = StepEngine(shelf)
    picture(engine)
    picture(engine, mode="b")
    engine.use(Catalogue("b", {"b": mode(folders, "b", default_steps=1)}))
    assert engine.mode == "b"
    assert [model.mode for model in shelf.resident] == ["b"]
    assert engine.resolve(GenerateParams(prompt="x"), fallback_seed=1).steps == 1
    assert loads.made == ["a", "b"]


def test_a_pipelines_own_loop_wears_its_loras_at_every_step_whatever_others_wore_meanwhile(
    folders: dict[str, Path],
) -> None:
    shelf, _ = shelf_of(mode(folders, "a"))
    engine = StepEngine(shelf, capacity=1)
    worn = (lora(folders, "lora", 1.0),)

    def own_loop() -> Request:
        request = engine.resolve(
            GenerateParams(prompt="a red cat", num_inference_steps=3, seed=7), fallback_seed=1
        )
        assert isinstance(request, Request)
        model = dataclasses.replace(request.model, family=CALLBACK)
        model.__dict__["adapters"] = (
            request.model.adapters
        )  # one pipeline, as where a family starts from text only
        return replace(request, model=model, loras=worn)

    engine.admit("alone", own_loop())
    (alone,) = (event for event in run(engine) if isinstance(event, Finished))
    engine.admit("displaced", own_loop())
    while not any(isinstance(event, Stepped) for event in engine.step()):
        pass
    picture(engine, "urgent", lane=Lane.URGENT)
    (displaced,) = (event for event in run(engine) if isinstance(event, Finished))
    assert same(alone.picture, displaced.picture)


def run(engine: StepEngine) -> list[Event]:
    events = []
    while engine.jobs:
        events += engine.step()
    return events
