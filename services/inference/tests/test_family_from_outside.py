"""A family of models that another distribution brings: it is found by its entry point, and its jobs are batched."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.events import Event, Finished, Stepped
from reverie_inference.families.registry import GROUP, families
from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.shelf import Shelf
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams

#: A pipeline class of one's own, and who runs it.
MODULE = """
    import diffusers

    from reverie_inference.families.sd15 import StableDiffusion


    class Sketch(diffusers.StableDiffusionPipeline):
        pass


    class SketchFamily(StableDiffusion):
        name = "sketch"
        pipelines = (Sketch,)
        rows = []

        def runs(self, pipeline):
            return type(pipeline) is Sketch

        def predict(self, model, latents, timesteps, rows):
            self.rows.append(latents.shape[0])
            return super().predict(model, latents, timesteps, rows)


    class Broken:
        def __init__(self):
            raise RuntimeError("not today")
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution as an installer leaves it: a module, and a folder that says what it brings."""
    (tmp_path / "sketch_models.py").write_text(dedent(MODULE))
    about = tmp_path / "sketch_models-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sketch-models\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[{GROUP}]\nsketch = sketch_models:SketchFamily\nbroken = sketch_models:Broken\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    families.cache_clear()
    yield
    families.cache_clear()
    sys.modules.pop("sketch_models", None)


@pytest.mark.usefixtures("installed")
def test_a_family_of_another_distribution_loads_and_runs_its_pipeline_beside_ours(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    from sketch_models import Sketch, SketchFamily  # type: ignore[import-not-found]  # made by the fixture

    assert {"sketch", "sd15", "sdxl", "sd3"} <= families().keys()  # one that is broken takes nobody with it
    ours = load_pipeline(model_folders["sd15"], device="cpu")
    assert ours.family == "sd15"
    Sketch(**ours.pipeline.components, requires_safety_checker=False).save_pretrained(tmp_path / "model")
    model = load_pipeline(tmp_path / "model", device="cpu")
    assert (type(model.pipeline), model.family) == (Sketch, "sketch")
    engine = StepEngine(Shelf.holding(model))
    for seed in range(2):
        wish = GenerateParams(prompt="a red cat", size="64x64", num_inference_steps=3, seed=seed)
        engine.admit(str(seed), engine.resolve(wish, fallback_seed=1))
    events: list[Event] = []
    while engine.jobs:
        events += engine.step()
    assert sum(isinstance(event, Finished) for event in events) == 2
    assert sum(isinstance(event, Stepped) for event in events) == 6
    assert max(SketchFamily.rows) == 4  # both guided jobs in one evaluation


def test_a_pipeline_that_no_family_brings_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(model_folders["sd15"], tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "Sketch"))
    with pytest.raises(ReverieError) as refused:
        load_pipeline(tmp_path / "model", device="cpu")
    assert refused.value.code is ErrorCode.UNSUPPORTED_MODEL
