"""Named workflows: manifests, parameters, graphs and schemas."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from reverie_comfy_bridge.workflows.building import build
from reverie_comfy_bridge.workflows.catalogue import SHIPPED, Workflows, read_folder
from reverie_comfy_bridge.workflows.checking import check_graph
from reverie_comfy_bridge.workflows.manifest import ManifestError, read_workflow
from reverie_comfy_bridge.workflows.node_classes import read_node_classes
from reverie_comfy_bridge.workflows.offers import obstacle
from reverie_comfy_bridge.workflows.parameters import image_keys
from reverie_comfy_bridge.workflows.schema import input_image_of, schema_of
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import ComfyParams
from reverie_testing.clock import VirtualClock

OBJECT_INFO = json.loads((Path(__file__).parent / "data" / "object_info.json").read_text())
CLASSES = read_node_classes(OBJECT_INFO)
CATALOGUE = read_folder(SHIPPED)

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
MANIFEST = """
title = "Colour"
[parameters.colour]
type = "integer"
minimum = 0
maximum = 255
into = ["1.color"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(manifest: str = MANIFEST, graph: Any = GRAPH, name: str = "colour") -> Path:
        (tmp_path / f"{name}.json").write_text(graph if isinstance(graph, str) else json.dumps(graph))
        (tmp_path / f"{name}.toml").write_text(manifest)
        return tmp_path

    return write


def params(workflow: str, image: str | None = None, /, **given: Any) -> ComfyParams:
    return ComfyParams(workflowId=workflow, params=given, inputImage=image)


def wrong(workflow: str, image: str | None = None, /, **given: Any) -> dict[str, str]:
    """Type of error by field."""
    with pytest.raises(ReverieError) as raised:
        build(params(workflow, image, **given), CATALOGUE[workflow], classes=CLASSES, seed_from="job")
    return {".".join(map(str, field.loc)): field.type for field in raised.value.fields}


@pytest.mark.parametrize(
    ("workflow", "image", "given"),
    [
        ("text_to_image", None, {"prompt": "a cat"}),
        ("image_to_image", "sha256-a.png", {"prompt": "a cat"}),
        ("upscale", "sha256-a.png", {}),
        ("filters", "sha256-a.png", {}),
        ("filters", None, {}),
    ],
)
def test_what_ships_builds_a_graph_that_an_instance_takes(
    workflow: str, image: str | None, given: dict[str, Any]
) -> None:
    built = build(params(workflow, image, **given), CATALOGUE[workflow], classes=CLASSES, seed_from="job")
    assert check_graph(built.graph, CLASSES) == ()
    assert obstacle(CATALOGUE[workflow], CLASSES) == ""
    assert built.outputs == {"save"}
    Draft202012Validator.check_schema(schema_of(CATALOGUE[workflow], [CLASSES]))


def test_parameters_go_to_their_places_and_defaults_fill_the_rest() -> None:
    built = build(
        params("text_to_image", prompt="a cat", steps=7, seed=5, width=128),
        CATALOGUE["text_to_image"],
        classes=CLASSES,
        seed_from="job",
    )
    assert built.graph["prompt"]["inputs"]["text"] == "a cat"
    assert (
        built.graph["sampler"]["inputs"] | {"steps": 7, "seed": 5, "cfg": 7.0}
        == built.graph["sampler"]["inputs"]
    )
    assert (built.graph["latent"]["inputs"]["width"], built.graph["latent"]["inputs"]["height"]) == (128, 512)
    assert built.graph["checkpoint"]["inputs"]["ckpt_name"] == "tiny.safetensors"
    assert built.seed == 5
    assert CATALOGUE["text_to_image"].graph["prompt"]["inputs"]["text"] == ""  # the template is as it was


def test_a_seed_that_is_not_given_follows_from_the_job() -> None:
    def seed(job_id: str) -> int | None:
        job = params("text_to_image", prompt="a cat")
        return build(job, CATALOGUE["text_to_image"], classes=CLASSES, seed_from=job_id).seed

    assert seed("one") == seed("one") != seed("two")


def test_every_wrong_parameter_is_named_at_once() -> None:
    found = wrong("text_to_image", steps=151, width=100, seed=-1, sampler="magic", guidance="7", stpes=3)
    assert found == {
        "params.prompt": "missing",
        "params.steps": "out_of_range",
        "params.width": "out_of_range",
        "params.seed": "out_of_range",
        "params.sampler": "choice",
        "params.guidance": "type_error",
        "params.stpes": "unknown_field",
    }


def test_pictures_are_references_and_nothing_else() -> None:
    assert wrong("upscale") == {"params.image": "missing"}
    assert wrong("upscale", image="in.png")["params.image"] == "type_error"
    assert wrong("text_to_image", "sha256-a.png", prompt="x") == {"inputImage": "unknown_field"}
    job = ComfyParams(workflowId="upscale", params={"image": "fileRef:sha256-a.png"})
    assert image_keys(job, CATALOGUE["upscale"]) == {"image": "sha256-a.png"}
    other = msgspec.structs.replace(job, inputImage="sha256-b.png")
    with pytest.raises(ReverieError, match="differs from inputImage"):
        build(other, CATALOGUE["upscale"], classes=CLASSES, seed_from="job")


def test_a_picture_goes_in_by_the_name_it_has_there_and_without_one_another_graph_is_used() -> None:
    filters = CATALOGUE["filters"]
    job = params("filters", "sha256-a.png", width=64)
    built = build(job, filters, classes=CLASSES, seed_from="job", files={"image": "reverie/a.png"})
    assert built.graph["image"]["inputs"]["image"] == "reverie/a.png"
    assert built.graph["colour"]["inputs"]["width"] == built.graph["size"]["inputs"]["width"] == 64
    without = build(params("filters"), filters, classes=CLASSES, seed_from="job")
    assert without.graph["image"]["class_type"] == "ImageCompositeMasked"


def test_the_schema_takes_what_building_takes() -> None:
    def fits(workflow: str, **given: Any) -> bool:
        return Draft202012Validator(schema_of(CATALOGUE[workflow], [CLASSES])).is_valid(given)

    assert fits("text_to_image", prompt="a cat", checkpoint="other.safetensors", seed=None)
    for given in (
        {},
        {"prompt": "x", "steps": 0},
        {"prompt": "x", "checkpoint": "no"},
        {"prompt": "x", "a": 1},
    ):
        assert not fits("text_to_image", **given)
    assert fits("upscale")
    unknown = Draft202012Validator(schema_of(CATALOGUE["text_to_image"]))  # while no instance is there
    assert unknown.is_valid({"prompt": "x", "checkpoint": "any", "sampler": None})
    assert [input_image_of(CATALOGUE[name]) for name in ("upscale", "filters", "text_to_image")] == [
        "required",
        "optional",
        "none",
    ]


def test_an_instance_without_a_class_or_a_model_cannot_run_it_and_says_why() -> None:
    fewer = {name: info for name, info in OBJECT_INFO.items() if name != "ImageQuantize"}
    assert "ImageQuantize is not installed" in obstacle(CATALOGUE["filters"], read_node_classes(fewer))
    empty = json.loads(json.dumps(OBJECT_INFO))
    empty["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = []
    classes = read_node_classes(empty)
    assert "nothing to choose for checkpoint" in obstacle(CATALOGUE["text_to_image"], classes)
    assert obstacle(CATALOGUE["filters"], classes) == ""
    large = msgspec.structs.replace(CATALOGUE["filters"], tags=frozenset({"large"}))
    assert obstacle(large, CLASSES) == "it has no tag large"
    assert obstacle(large, CLASSES, ("fast", "large")) == ""


@pytest.mark.parametrize(
    ("manifest", "graph", "reason"),
    [
        ("title = ", GRAPH, "not valid TOML"),
        ("", GRAPH, "title"),
        (MANIFEST + "colour = 3", GRAPH, "colour"),
        (MANIFEST.replace("1.color", "1.colour"), GRAPH, "has no input '1.colour'"),
        (MANIFEST.replace("1.color", "color"), GRAPH, "is not <node>.<input>"),
        (MANIFEST.replace("integer", "number"), GRAPH, "type"),
        (MANIFEST + "default = 256", GRAPH, "outside minimum and maximum"),
        (MANIFEST + 'default = "red"', GRAPH, "is no integer"),
        (MANIFEST.replace("integer", "choice"), GRAPH, "one of choices and choices_from"),
        (MANIFEST.replace("[param", 'outputs = ["9"]\n[param'), GRAPH, "no node 9"),
        (MANIFEST.replace("[param", 'without_image = "../x.json"\n[param'), GRAPH, "same folder"),
        (MANIFEST, {"nodes": [], "links": []}, "save the workflow in API format"),
        (MANIFEST, "[1]", "must be an object"),
        (MANIFEST, "{", "not valid JSON"),
        (MANIFEST, {}, "1 to 1000 nodes"),
    ],
)
def test_a_manifest_that_is_wrong_says_where(
    folder: Callable[..., Path], manifest: str, graph: Any, reason: str
) -> None:
    with pytest.raises(ManifestError, match=reason):
        read_workflow(folder(manifest, graph) / "colour.toml")


async def test_the_folder_is_followed_and_a_broken_file_changes_nothing(folder: Callable[..., Path]) -> None:
    clock = VirtualClock()
    workflows = Workflows(folder(), shipped=True, clock=clock)
    heard: list[int] = []
    workflows.listen(lambda: heard.append(len(workflows.catalogue)))
    await workflows.read()
    assert set(workflows.catalogue) == {*CATALOGUE, "colour"}
    path = folder(MANIFEST.replace("Colour", "Tint"), name="filters")  # takes the place of what ships
    os.utime(path / "filters.toml", (1, 1))
    await workflows.read()
    assert workflows.catalogue["filters"].title == "Tint"
    folder("title = 3", name="third")
    with pytest.raises(ManifestError):
        await workflows.read()
    assert set(workflows.catalogue) == {*CATALOGUE, "colour"}
    assert heard == [5, 5]
