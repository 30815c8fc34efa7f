"""Frames of ComfyUI's socket: all that was recorded is understood, and nothing that is not can do harm."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_comfy_bridge.wire.frames import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    FeatureFlags,
    Frame,
    NodeProgress,
    NodeText,
    Picture,
    Progress,
    ProgressState,
    Status,
    read_frame,
)
from reverie_comfy_bridge.wire.outputs import OutputFile, OutputText
from reverie_testing.fake_comfy import recorded

TYPES = {
    "status": Status,
    "feature_flags": FeatureFlags,
    "execution_start": ExecutionStart,
    "execution_cached": ExecutionCached,
    "progress_state": ProgressState,
    "progress": Progress,
    "executing": Executing,
    "executed": Executed,
    "execution_success": ExecutionSuccess,
    "execution_error": ExecutionError,
    "execution_interrupted": ExecutionInterrupted,
}
BINARY_TYPES = {1: Picture, 3: NodeText, 4: Picture}
SCENARIOS = [
    (version, scenario) for version in recorded.versions() for scenario in recorded.scenarios(version)
]
JPEG = b"\xff\xd8\xff\xe0 and so on"


def read(type_: str, data: object) -> Frame | None:
    return read_frame(json.dumps({"type": type_, "data": data}))


def binary(kind: int, second: int, rest: bytes) -> Frame | None:
    return read_frame(struct.pack(">II", kind, second) + rest)


@pytest.mark.parametrize(("version", "scenario"), SCENARIOS)
def test_every_recorded_message_reads_as_the_frame_it_is(version: str, scenario: str) -> None:
    for message in recorded.messages(version, scenario):
        frame = read_frame(message)
        if isinstance(message, str):
            assert type(frame) is TYPES[json.loads(message)["type"]]
        else:
            assert type(frame) is BINARY_TYPES[struct.unpack_from(">I", message)[0]]


@pytest.mark.parametrize("version", recorded.versions())
def test_a_recorded_picture_says_what_it_is_and_with_metadata_whose(version: str) -> None:
    pictures = [
        frame
        for message in recorded.messages(version, "s12_ws_reconnect_mid_run")
        if isinstance(frame := read_frame(message), Picture)
    ]
    assert pictures
    assert {picture.media_type for picture in pictures} == {"image/jpeg"}
    assert all(picture.image.startswith(b"\xff\xd8\xff") for picture in pictures)
    named = [picture for picture in pictures if picture.prompt_id]
    assert bool(named) is (version == "0.33.0")
    assert all(picture.node == picture.display_node == "1" for picture in named)


def test_frames_of_a_node_that_expansion_made_name_the_node_a_person_sees() -> None:
    frames = [read_frame(message) for message in recorded.messages("0.33.0", "s17_node_expansion_and_async")]
    assert Executing("53e50c7c-5de7-4933-af3f-6790011a190c", "1.0.0.2", "1") in frames
    shown = {
        (node.node, node.display_node)
        for frame in frames
        if isinstance(frame, ProgressState)
        for node in frame.nodes
    }
    assert {("1", "1"), ("1.0.0.1", "1"), ("1.0.0.2", "1")} <= shown


def test_the_end_of_a_prompt_is_executing_without_a_node() -> None:
    assert read("executing", {"node": None, "prompt_id": "p"}) == Executing("p", None)


def test_after_a_reconnect_executing_has_no_prompt() -> None:
    assert read("executing", {"node": "1"}) == Executing("", "1")


def test_texts_and_pictures_are_read_with_and_without_ids() -> None:
    assert binary(3, 2, b"12step 1/3") == NodeText("12", "step 1/3")
    assert binary(1, 1, JPEG) == Picture(JPEG, "image/jpeg")
    metadata = json.dumps({"node_id": "1.0", "prompt_id": "p", "real_node_id": "1"}).encode()
    assert binary(4, len(metadata), metadata + JPEG) == Picture(JPEG, "image/jpeg", "p", "1.0", "1")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "[]",
        "7",
        "{not json",
        '{"type": 5}',
        '{"type": ["status"]}',
        '{"type": "crystools.monitor", "data": {"cpu": 3}}',
        '{"type": "executed", "data": {"node": null}}',
        '{"type": "executing", "data": {"node": {"id": 1}}}',
        b"",
        b"\0\0\0\1",
        struct.pack(">II", 1, 1),
        struct.pack(">II", 1, 7) + JPEG,
        struct.pack(">II", 2, 1) + JPEG,
        struct.pack(">II", 3, 0) + b"text",
        struct.pack(">II", 3, 2**31) + b"1text",
        struct.pack(">II", 4, 2**32 - 1) + b"{}",
        struct.pack(">II", 10, 1) + JPEG,
    ],
)
def test_what_is_unknown_or_cut_short_is_skipped(message: str | bytes) -> None:
    assert read_frame(message) is None


def test_numbers_that_make_no_sense_read_as_absent() -> None:
    for value in ("3", None, True, [], {}, float("nan"), float("inf"), 10**400):
        frame = read_frame(
            json.dumps({"type": "progress", "data": {"value": value, "max": 4, "prompt_id": "p"}})
        )
        assert frame == Progress("p", "", None, 4.0)
        assert frame.fraction is None
    assert Progress("p", "1", -1.0, 4.0).fraction is None
    assert Progress("p", "1", 1.0, 0.0).fraction is None
    assert Progress("p", "1", 9.0, 4.0).fraction == 1.0


def test_progress_states_without_their_fields_keep_what_they_have() -> None:
    nodes = {"7": {"state": "running"}, "8": {"state": "finished", "value": "x", "max": -2}, "9": 3, "10": {}}
    frame = read("progress_state", {"prompt_id": "p", "nodes": nodes})
    assert frame == ProgressState(
        "p", (NodeProgress("7", "running"), NodeProgress("8", "finished", None, -2))
    )


def test_ids_may_be_numbers() -> None:
    assert read("executing", {"node": 12, "prompt_id": "p"}) == Executing("p", "12")


def test_an_error_with_python_only_json_in_it_is_still_an_error() -> None:
    data = {
        "prompt_id": "p",
        "node_id": "3",
        "exception_message": "boom\n",
        "current_inputs": {"x": [float("nan")]},
    }
    assert read("execution_error", data) == ExecutionError("p", "3", message="boom")


def test_outputs_are_all_lists_of_files_and_of_texts_whatever_their_key() -> None:
    output = {
        "images": [{"filename": "a.png", "subfolder": "s", "type": "temp"}, {"name": "no file"}, 4],
        "gifs": [{"filename": "b.webp"}],
        "animated": [True],
        "text": ["hello", "world"],
        "3d": [{"filename": "c.glb", "type": None}],
    }
    frame = read("executed", {"node": "9", "output": output, "prompt_id": "p"})
    assert isinstance(frame, Executed)
    assert frame.outputs.files == (
        OutputFile("9", "images", "a.png", "s", "temp"),
        OutputFile("9", "gifs", "b.webp"),
        OutputFile("9", "3d", "c.glb"),
    )
    assert frame.outputs.texts == (OutputText("9", "text", "hello"), OutputText("9", "text", "world"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["node", "nodes", "prompt_id", "value", "max", "status", "output", "display_node", "node_id", "state"]
)


@given(st.sampled_from(sorted(TYPES)), st.dictionaries(FIELDS, JSON) | JSON)
def test_no_data_whatever_raises(type_: str, data: object) -> None:
    read(type_, data)


@given(st.binary(max_size=64) | st.text(max_size=64))
def test_no_garbage_raises(message: str | bytes) -> None:
    read_frame(message)


@given(st.sampled_from([0, 1, 2, 3, 4, 5, 10, 2**32 - 1]), st.integers(0, 2**32 - 1), st.binary(max_size=32))
def test_no_binary_garbage_raises(kind: int, second: int, rest: bytes) -> None:
    binary(kind, second, rest)


@pytest.mark.parametrize("version", recorded.versions())
def test_a_recorded_message_cut_anywhere_is_skipped_or_shorter(version: str) -> None:
    for message in recorded.messages(
        version, "s16_png_preview_and_text" if version != "2024-06" else "s04_sd_previews_with_metadata"
    ):
        for end in range(0, len(message), 7):
            read_frame(message[:end])
