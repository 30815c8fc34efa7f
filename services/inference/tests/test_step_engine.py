from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reverie_inference.engine.encoding import encode
from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.evaluation import evaluate
from reverie_inference.engine.events import Event, Failed, Finished, Started, Stepped
from reverie_inference.engine.request import Request
from reverie_inference.engine.sampling import Sampling
from reverie_inference.engine.schedulers import RECIPES, make_scheduler
from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, Phase, StyleLora


def request_for(model: LoadedModel, **params: Any) -> Request:
    defaults = {"prompt": "a red cat", "size": "64x64", "num_inference_steps": 3, "seed": 7}
    return StepEngine(Shelf.holding(model)).resolve(GenerateParams(**{**defaults, **params}), fallback_seed=1)


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


def same(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.array(first), np.array(second))


@pytest.fixture(scope="module")
def bare(model_folders: dict[str, Path]) -> dict[str, Any]:
    """Pipelines of their own that the engine never touches."""
    return {name: load_pipeline(path, device="cpu").pipeline for name, path in model_folders.items()}


@pytest.mark.parametrize(
    ("family", "scheduler", "guidance"),
    [
        *(("sd15", name, 5.0) for name in (None, *RECIPES)),
        *(("sdxl", name, 5.0) for name in (None, *list(RECIPES)[::3])),
        *((family, name, 1.0) for family in ("sd15", "sdxl") for name in (None, "LCM", "Euler a")),
    ],
)
def test_a_picture_equals_that_of_the_bare_pipeline_bit_for_bit(
    models: dict[str, LoadedModel],
    bare: dict[str, Any],
    family: str,
    scheduler: str | None,
    guidance: float,
) -> None:
    pipeline = bare[family]
    own = pipeline.scheduler
    pipeline.scheduler = make_scheduler(own, scheduler)[1]
    expected = pipeline(
        "a red cat",
        negative_prompt="ugly",
        width=64,
        height=96,
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    pipeline.scheduler = own
    picture = make(
        models[family],
        negative_prompt="ugly",
        size="64x96",
        guidance_scale=guidance,
        scheduler=scheduler,
    )
    assert same(picture, expected)


@pytest.mark.parametrize("who", ["own_loop", "sd3"])
def test_a_flow_matching_pipelines_picture_is_the_bare_pipelines_whoever_runs_it(
    models: dict[str, LoadedModel], bare: dict[str, Any], who: str
) -> None:
    engine = StepEngine(Shelf.holding(models[who]))
    engine.admit("job", request_for(models[who], guidance_scale=3.0))
    events = run(engine)
    assert [event.step for event in events if isinstance(event, Stepped)] == [1, 2, 3]
    assert {event.phase for event in events if isinstance(event, Started)} >= {
        Phase.ENCODING,
        Phase.DENOISING,
    }
    expected = bare["sd3"](
        "a red cat",
        width=64,
        height=64,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    assert isinstance(events[-1], Finished)
    assert same(events[-1].picture, expected)


def test_events_tell_phases_and_steps_in_order(models: dict[str, LoadedModel]) -> None:
    engine = StepEngine(Shelf.holding(models["sd15"]))
    engine.admit("job", request_for(models["sd15"]))
    told = [event.phase if isinstance(event, Started) else type(event).__name__ for event in run(engine)]
    assert told == [
        Phase.ENCODING,
        Phase.DENOISING,
        "Stepped",
        "Stepped",
        "Stepped",
        Phase.DECODING,
        "Finished",
    ]


@pytest.mark.parametrize("scheduler", ["Heun", "PLMS", "DPM2 a"])
def test_a_second_order_scheduler_counts_steps_as_the_user_asked_for_them(
    models: dict[str, LoadedModel], scheduler: str
) -> None:
    engine = StepEngine(Shelf.holding(models["sd15"]))
    engine.admit("job", request_for(models["sd15"], scheduler=scheduler, num_inference_steps=4))
    steps = [event for event in run(engine) if isinstance(event, Stepped)]
    assert steps[-1].step == steps[-1].steps == 4
    assert [event.step for event in steps] == sorted(event.step for event in steps)


def test_a_job_that_waits_between_two_steps_goes_on_with_the_same_bits(
    models: dict[str, LoadedModel],
) -> None:
    model = models["sdxl"]
    engine = StepEngine(Shelf.holding(model))
    engine.admit("job", request_for(model, scheduler="Euler a"))
    events = [event for _ in range(3) for event in engine.step()]
    make(model, seed=99, scheduler="Euler a")
    events += run(engine)
    assert isinstance(events[-1], Finished)
    assert same(events[-1].picture, make(model, scheduler="Euler a"))


def test_a_job_beyond_the_room_waits_its_turn_and_one_that_is_in_is_refused(
    models: dict[str, LoadedModel],
) -> None:
    engine = StepEngine(Shelf.holding(models["sd15"]), capacity=2)
    engine.admit("job", request_for(models["sd15"]))
    with pytest.raises(RuntimeError, match="already"):
        engine.admit("job", request_for(models["sd15"]))
    engine.admit("other", request_for(models["sd15"]))
    engine.admit("third", request_for(models["sd15"]))
    begun = {event.job_id for event in engine.step()}
    assert begun == {"job", "other"}
    ended = [event.job_id for event in run(engine) if isinstance(event, Finished)]
    assert ended == ["job", "other", "third"]


@pytest.mark.parametrize("family", ["sd15", "sdxl", "tiny_vae", "sd3", "own_loop"])
def test_a_job_that_leaves_keeps_what_it_has_drawn_and_the_engine_serves_the_next(
    models: dict[str, LoadedModel], family: str
) -> None:
    model = models[family]
    engine = StepEngine(Shelf.holding(model))
    engine.admit("job", request_for(model, num_inference_steps=50))
    while not any(isinstance(event, Stepped) for event in engine.step()):
        pass
    left = engine.leave("job", keep_partial=True)
    assert left is not None
    assert left.picture is not None
    assert left.picture.size == (64, 64)
    assert engine.jobs == ()
    assert same(make(model), make(model))


@pytest.mark.parametrize("family", ["sd15", "sd3", "own_loop"])
def test_a_job_that_leaves_before_its_first_step_leaves_nothing(
    models: dict[str, LoadedModel], family: str
) -> None:
    engine = StepEngine(Shelf.holding(models[family]))
    engine.admit("job", request_for(models[family]))
    engine.step()
    left = engine.leave("job", keep_partial=True)
    assert left is not None
    assert left.picture is None
    assert engine.leave("job") is None


@pytest.mark.parametrize("scheduler", ["Euler", "DDIM", "DPM++ 2M Karras", "LCM", "Heun"])
def test_the_estimate_of_a_running_job_approaches_its_final_latents(
    models: dict[str, LoadedModel], scheduler: str
) -> None:
    request = request_for(models["sd15"], scheduler=scheduler, num_inference_steps=20)
    sampling = Sampling(models["sd15"], request)
    sampling.begin(encode([request])[0])
    estimates = []
    while not sampling.done:
        sampling.accept(evaluate([sampling])[0])
        estimates.append(sampling.estimate())
    distances = [float((estimate - estimates[-1]).norm()) for estimate in estimates]
    assert distances[-2] < distances[5] < distances[0]
    assert float((estimates[-2] - estimates[-1]).norm()) < 0.2 * float(estimates[-1].norm())


@pytest.mark.parametrize(("family", "side"), [("sd15", 32), ("sdxl", 32), ("sd3", 32), ("tiny_vae", 64)])
def test_a_preview_is_a_small_jpeg_once_a_step_is_done(
    models: dict[str, LoadedModel], family: str, side: int
) -> None:
    engine = StepEngine(Shelf.holding(models[family]))
    engine.admit("job", request_for(models[family]))
    engine.step()
    assert engine.preview("job") is None
    while not any(isinstance(event, Stepped) for event in engine.step()):
        pass
    preview = engine.preview("job")
    assert preview is not None
    assert (preview.width, preview.height) == (side, side)
    assert preview.jpeg.startswith(b"\xff\xd8")
    assert engine.preview("another") is None


@pytest.mark.parametrize("prompt", ["", "🐈" * 5, "x" * 10_000, "a\x00b", "مرحبا <|endoftext|> ' \""])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_any_prompt_makes_a_picture(
    models: dict[str, LoadedModel], family: str, prompt: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert make(models[family], prompt=prompt, num_inference_steps=1).size == (64, 64)
    assert "xxx" not in "".join(capfd.readouterr())


def test_an_unknown_scheduler_is_named_with_those_there_are(models: dict[str, LoadedModel]) -> None:
    with pytest.raises(ReverieError) as caught:
        request_for(models["sd15"], scheduler="Foo")
    assert caught.value.code is ErrorCode.INVALID_FIELD
    assert "Foo" in caught.value.message
    assert "DPM++ 2M Karras" in caught.value.message
    assert caught.value.fields[0].loc == ("scheduler",)


@pytest.mark.parametrize("name", ["euler A", "EulerAncestralDiscreteScheduler", " euler  a "])
def test_scheduler_names_are_found_in_any_spelling(models: dict[str, LoadedModel], name: str) -> None:
    scheduler = request_for(models["sd15"], scheduler=name).scheduler
    assert type(scheduler).__name__ == "EulerAncestralDiscreteScheduler"


def test_a_flow_matching_model_offers_its_own_scheduler_only(models: dict[str, LoadedModel]) -> None:
    with pytest.raises(ReverieError, match="FlowMatchEulerDiscreteScheduler"):
        request_for(models["sd3"], scheduler="Euler")
    assert request_for(models["sd3"], scheduler="FlowMatchEulerDiscreteScheduler").steps == 3


def test_steps_that_a_scheduler_does_not_take_fail_the_job_naming_the_field(
    models: dict[str, LoadedModel],
) -> None:
    engine = StepEngine(Shelf.holding(models["sd15"]))
    engine.admit("job", request_for(models["sd15"], scheduler="LCM", num_inference_steps=150))
    last = run(engine)[-1]
    assert isinstance(last, Failed)
    assert last.code is ErrorCode.INVALID_FIELD
    assert "150" in last.message


def test_a_style_that_is_not_there_is_refused_unless_it_is_off(models: dict[str, LoadedModel]) -> None:
    with pytest.raises(ReverieError) as caught:
        request_for(models["sd15"], style_lora=StyleLora("sketch", 3))
    assert caught.value.code is ErrorCode.STYLE_NOT_FOUND
    request_for(models["sd15"], style_lora=StyleLora("sketch", 0))


def test_what_a_request_gives_wins_over_the_model_and_the_rest_is_the_models(
    models: dict[str, LoadedModel],
) -> None:
    params = GenerateParams(prompt="x", guidance_scale=0.0)
    request = StepEngine(Shelf.holding(models["sd15"])).resolve(params, fallback_seed=5)
    assert (request.guidance, request.steps, request.seed) == (0.0, 25, 5)
    assert request.plan.final == (64, 64)
    assert request.meta.scheduler == "DDIMScheduler"


@pytest.fixture
def failing(models: dict[str, LoadedModel]) -> Iterator[Any]:
    """Makes the UNet raise an exception at its second evaluation."""
    handles = []

    def arrange(error: BaseException) -> LoadedModel:
        calls = iter([None, error])

        def hook(*_: Any) -> None:
            raised = next(calls, None)
            if raised is not None:
                raise raised

        handles.append(models["sd15"].pipeline.unet.register_forward_pre_hook(hook))
        return models["sd15"]

    yield arrange
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
    ],
)
def test_out_of_memory_fails_the_job_with_its_reason_and_leaves_the_engine_serving(
    failing: Any, error: BaseException
) -> None:
    model = failing(error)
    engine = StepEngine(Shelf.holding(model))
    engine.admit("job", request_for(model))
    last = run(engine)[-1]
    assert isinstance(last, Failed)
    assert last.code is ErrorCode.OUT_OF_MEMORY
    engine.admit("job", request_for(model))
    assert isinstance(run(engine)[-1], Finished)


def test_a_picture_that_cannot_fit_into_memory_is_refused_before_the_machine_runs_out(
    models: dict[str, LoadedModel],
) -> None:
    from reverie_inference.engine.memory import require_memory

    with pytest.raises(ReverieError) as caught:
        require_memory(models["sd15"], (4096, 4096), available_bytes=1_000_000)
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    require_memory(models["sd15"], (64, 64), available_bytes=1_000_000_000)


def test_any_other_failure_tells_the_client_no_trace_and_no_path(failing: Any) -> None:
    model = failing(ValueError("secret /home/someone/model.bin line 3"))
    engine = StepEngine(Shelf.holding(model))
    engine.admit("job", request_for(model))
    last = run(engine)[-1]
    assert isinstance(last, Failed)
    assert last.code is ErrorCode.INFERENCE_FAILED
    assert "secret" not in last.message
    assert "/" not in last.message
    engine.admit("job", request_for(model))
    assert isinstance(run(engine)[-1], Finished)


def test_an_output_that_is_not_finite_is_still_a_picture(models: dict[str, LoadedModel]) -> None:
    vae = models["sd15"].pipeline.vae
    handle = vae.decoder.register_forward_hook(lambda _module, _inputs, output: output * float("nan"))
    try:
        picture = make(models["sd15"], num_inference_steps=1)
    finally:
        handle.remove()
    assert picture.getextrema() == ((0, 0), (0, 0), (0, 0))
