"""What was asked of real servers, asked of the fake: it tells the same, in the same order, in the same shape."""

from collections.abc import Iterator
from typing import Any

import pytest

from reverie_testing.comfy_client import Comfy, Frame, comfy_at, read_frame
from reverie_testing.fake_comfy import RECORDED, FakeComfy, Features, features_of
from reverie_testing.fake_comfy.recorded import Line, lines, message, scenarios

#: Scenarios whose prompts run one after the other, each to its end.
SCENARIOS = (
    "s03_success_basic",
    "s04_sd_previews_with_metadata",
    "s06_cached_second_run",
    "s07_execution_error",
    "s17_node_expansion_and_async",
    "s35_SaveImageWebsocket",
)
CASES = [(version, name) for version in RECORDED for name in SCENARIOS if name in scenarios(version)]


def conversations(recording: tuple[Line, ...]) -> Iterator[tuple[dict[str, Any], bool, list[Frame]]]:
    """Each prompt of a recording: its request, whether its owner sent flags, and the frames up to its end."""
    body, flags, frames = None, False, list[Frame]()
    for line in recording:
        if line["kind"] == "ws_open":
            flags = False
        elif line["kind"] == "ws_send":
            flags = True
        elif line["kind"] == "http_req" and line["path"] == "/prompt" and line["method"] == "POST":
            body, frames = line["body"], []
        elif (sent := message(line)) is not None and body is not None:
            frames.append(read_frame(sent))
            kind, data = frames[-1]
            if kind == "executing" and data["node"] is None:
                yield body, flags, frames
                body = None


def shape(frames: list[Frame]) -> list[Any]:
    """What of the frames does not depend on time or chance."""
    shapes: list[Any] = []
    for kind, data in frames:
        if kind.startswith("binary"):
            shapes.append((kind,))
        elif kind == "progress_state":
            if all(one["state"] == "finished" or one["value"] == 0 for one in data["nodes"].values()):
                states = {name: one["state"] for name, one in data["nodes"].items()}
                shapes.append((kind, states, sorted(next(iter(data["nodes"].values())))))
        elif kind == "execution_cached":
            shapes.append((kind, set(data["nodes"]), sorted(data)))
        elif kind == "progress":
            if data["value"] == data["max"]:
                shapes.append((kind, data["node"], data["max"], sorted(data)))
        elif kind in ("executing", "executed"):
            output = sorted((name, len(files)) for name, files in data.get("output", {}).items())
            shapes.append((kind, str(data["node"]), sorted(data), output))
        elif kind == "execution_error":
            told = ("node_id", "node_type", "exception_type", "exception_message")
            shapes.append((kind, [data[name] for name in told], sorted(data), sorted(data["executed"])))
        elif kind not in ("status", "feature_flags"):
            shapes.append((kind, sorted(data)))
    if [data["node"] for kind, data in frames if kind == "executing"] == [None]:
        # All was cached: outputs are told in any order then, for ComfyUI keeps them in a set.
        executed = sorted(one for one in shapes if one[0] == "executed")
        return [[one[0] for one in shapes], executed]
    return shapes


async def asked(comfy: Comfy, body: dict[str, Any], flags: bool) -> tuple[str, list[Frame]]:
    """The same prompt asked of the fake: its id, and all frames up to its end."""
    client = body["client_id"]
    async with comfy.socket(client, flags=flags) as sock:
        begin = len(sock.frames)
        more = {name: value for name, value in body.items() if name not in ("prompt", "client_id")}
        prompt_id = await comfy.submit(body["prompt"], client, **more)
        await sock.end_of(prompt_id)
        return prompt_id, sock.frames[begin:]


@pytest.mark.parametrize(("version", "scenario"), CASES)
async def test_the_fake_tells_what_the_real_server_told(version: str, scenario: str) -> None:
    recording = lines(version, scenario)
    async with FakeComfy(version, pace=0, preview_method="latent2rgb") as fake, comfy_at(fake.url) as comfy:
        count = 0
        for body, flags, frames in conversations(recording):
            prompt_id, told = await asked(comfy, body, flags)
            assert shape(told) == shape(frames)
            await same_history(comfy, prompt_id, recording, count)
            count += 1
    assert count


async def same_history(comfy: Comfy, prompt_id: str, recording: tuple[Line, ...], index: int) -> None:
    """The history has the shape of the recorded one of the same prompt, if that was asked for."""
    real = [
        next(iter(line["json"].values()))
        for line in recording
        if line["kind"] == "http_res" and line["path"].startswith("/history/") and line.get("json")
    ]
    if index < len(real):
        wanted, got = real[index], await comfy.history(prompt_id)
        assert set(got) == set(wanted)
        assert list(got["outputs"]) == list(wanted["outputs"]) or len(got["outputs"]) > 1
        assert got["status"]["status_str"] == wanted["status"]["status_str"]
        assert got["status"]["completed"] == wanted["status"]["completed"]
        assert [kind for kind, _ in got["status"]["messages"]] == [
            kind for kind, _ in wanted["status"]["messages"]
        ]
        assert got.get("meta") == wanted.get("meta")
        assert sorted(got["prompt"][4]) == sorted(wanted["prompt"][4])


ABLE = {
    "2024-06": set(),
    "0.3.43": {"numbered", "text_frames"},
    "0.3.64": {
        "numbered",
        "text_frames",
        "progress_state",
        "interrupt_by_id",
        "history_offset",
    },
}


@pytest.mark.parametrize("version", [*ABLE, "0.33.0"])
def test_a_version_can_what_it_was_seen_to_do(version: str) -> None:
    features = features_of(version)
    names = {name for name, one in vars(Features).items() if isinstance(one, property)}
    able = {name for name in names if getattr(features, name)}
    assert able == ABLE.get(version, names - {"progress_state_to_all"})
