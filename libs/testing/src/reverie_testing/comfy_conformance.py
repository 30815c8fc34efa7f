"""What a ComfyUI does over HTTP and while it runs a prompt: one suite for the fake and for real servers.

A test module makes a fixture `comfy_url` that yields the address of a running server that nobody else uses, and
imports the tests: `from reverie_testing.comfy_conformance import *`. Everything asserted here was recorded.
What differs between versions is asked of `comfy.features`. Needs the recording aids (RecLoop and its like) there.
"""

# ruff: noqa: D103 -- these are tests: their names are the sentences

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reverie_testing.comfy_client import (
    Comfy,
    Graph,
    comfy_at,
    is_end,
    loop_graph,
    node,
    picture_graph,
    sampling_graph,
    unique,
)

TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"


@pytest.fixture
async def comfy(comfy_url: str) -> AsyncIterator[Comfy]:
    async with comfy_at(comfy_url) as comfy:
        if "RecLoop" not in comfy.classes:
            pytest.skip("the server lacks the recording aids")
        yield comfy
        await comfy.post("/queue", {"clear": True})
        await comfy.post("/interrupt", {})
        await comfy.idle()


def needs(present: bool, what: str) -> None:
    if not present:
        pytest.skip(f"this version has no {what}")


def errors_of(body: Any) -> dict[str, list[str]]:
    """The types of a refusal's errors by node."""
    return {name: [e["type"] for e in found["errors"]] for name, found in body["node_errors"].items()}


# --- what can be asked ------------------------------------------------------------------------------------


async def test_every_device_is_named(comfy: Comfy) -> None:
    stats = await comfy.get("/system_stats")
    assert {"name", "type", "vram_total", "vram_free"} <= set(stats["devices"][0])
    assert "os" in stats["system"]


async def test_the_paths_of_numbered_versions_are_also_under_api(comfy: Comfy) -> None:
    response = await comfy.http.get("/api/queue")
    assert response.status_code == (200 if comfy.features.numbered else 404)


async def test_an_empty_queue_has_two_empty_lists(comfy: Comfy) -> None:
    assert await comfy.get("/queue") == {"queue_running": [], "queue_pending": []}
    assert await comfy.get("/prompt") == {"exec_info": {"queue_remaining": 0}}


async def test_the_history_of_an_unknown_prompt_is_an_empty_object(comfy: Comfy) -> None:
    assert await comfy.get(f"/history/{uuid.uuid4()}") == {}
    assert await comfy.get("/history/not-a-uuid") == {}


async def test_a_class_is_described_by_its_inputs_and_outputs(comfy: Comfy) -> None:
    info = (await comfy.get("/object_info/EmptyImage"))["EmptyImage"]
    assert set(info["input"]["required"]) == {"width", "height", "batch_size", "color"}
    assert info["input"]["required"]["width"][0] == "INT"
    assert info["input"]["required"]["width"][1]["max"] == 16384
    assert info["output"] == ["IMAGE"]
    assert info["output_node"] is False
    assert (await comfy.get("/object_info/SaveImage"))["SaveImage"]["output_node"] is True
    assert await comfy.get("/object_info/NoSuchNode") == {}


async def test_features_are_told_since_there_are_any(comfy: Comfy) -> None:
    response = await comfy.http.get("/features")
    if comfy.features.progress_state:
        assert response.json()["supports_preview_metadata"] is True
    else:
        assert response.status_code == 404


async def test_a_page_of_another_origin_is_refused_by_numbered_versions(comfy: Comfy) -> None:
    response = await comfy.http.get("/queue", headers={"Origin": "http://evil.example"})
    assert response.status_code == (403 if comfy.features.numbered else 200)


async def test_a_wrong_method_is_told(comfy: Comfy) -> None:
    assert (await comfy.http.delete("/queue")).status_code == 405
    assert (await comfy.http.get("/no/such/path")).status_code == 404


# --- submission -------------------------------------------------------------------------------------------


async def test_an_own_prompt_id_is_kept_by_versions_that_can_and_ignored_by_others(comfy: Comfy) -> None:
    wanted = str(uuid.uuid4())
    answered = await comfy.submit(picture_graph(), prompt_id=wanted)
    assert (answered == wanted) is comfy.features.progress_state


async def test_an_own_prompt_id_that_is_no_uuid_is_refused_by_versions_that_check(comfy: Comfy) -> None:
    needs(comfy.features.progress_state, "prompt ids of the client")
    body = {"prompt": picture_graph(), "prompt_id": f"JOB-{uuid.uuid4()}"}
    response = await comfy.post("/prompt", body)
    if comfy.features.uuid_check:
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_prompt_id"
    else:
        assert response.json()["prompt_id"] == body["prompt_id"]


async def test_every_submission_is_numbered_higher_than_the_last(comfy: Comfy) -> None:
    numbers = [(await comfy.post("/prompt", {"prompt": picture_graph()})).json()["number"] for _ in range(3)]
    assert numbers == sorted(set(numbers))


async def test_a_lower_number_runs_earlier_and_front_before_those_that_wait(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        running = await comfy.submit(loop_graph(30), client)
        await sock.until(lambda frame: frame[0] == "progress")
        last = await comfy.submit(picture_graph(), client)
        front = await comfy.submit(picture_graph(), client, front=True)
        first = await comfy.submit(picture_graph(), client, number=-1e6)
        await sock.end_of(last)
        started = [data["prompt_id"] for kind, data in sock.frames if kind == "execution_start"]
    assert started == [running, first, front, last]


async def test_extra_data_is_given_back_by_queue_and_history(comfy: Comfy) -> None:
    mark = {"job": uuid.uuid4().hex, "attempt": 1}
    prompt_id = await comfy.submit(loop_graph(50), extra_data={"reverie": mark})
    queue = await comfy.get("/queue")
    [item] = queue["queue_running"] + queue["queue_pending"]
    assert item[1] == prompt_id
    assert item[3]["reverie"] == mark
    await comfy.post("/interrupt", {"prompt_id": prompt_id})
    await comfy.idle()
    if (await comfy.get(f"/history/{prompt_id}")) == {}:  # it had not begun: only asked, not run
        return
    assert (await comfy.history(prompt_id))["prompt"][3]["reverie"] == mark


async def test_the_queue_shows_the_graphs_that_run_and_that_wait(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    waiting_graph = picture_graph()
    async with comfy.socket(client) as sock:
        running = await comfy.submit(loop_graph(20), client)
        await sock.until(lambda frame: frame[0] == "progress")
        waiting = await comfy.submit(waiting_graph, client)
        queue = await comfy.get("/queue")
        assert [item[1] for item in queue["queue_running"]] == [running]
        [[_, prompt_id, graph, extra, outputs]] = queue["queue_pending"]
        assert (prompt_id, graph, outputs) == (waiting, waiting_graph, ["3"])
        assert extra["client_id"] == client
        assert await comfy.get("/prompt") == {"exec_info": {"queue_remaining": 2}}


async def test_a_body_that_is_no_json_is_a_server_error_in_plain_text(comfy: Comfy) -> None:
    response = await comfy.http.post("/prompt", content="{not json")
    assert (response.status_code, response.text) == (500, TROUBLE)


async def test_a_body_without_a_prompt_is_refused(comfy: Comfy) -> None:
    response = await comfy.post("/prompt", {"client_id": "x"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "no_prompt" if comfy.features.numbered else error == "no prompt"


def image(**inputs: Any) -> Graph:
    """A graph with an EmptyImage of these inputs."""
    good = {"width": 32, "height": 32, "batch_size": 1, "color": 0}
    return {
        "1": node("EmptyImage", **{k: v for k, v in {**good, **inputs}.items() if v is not ...}),
        "2": node("SaveImage", images=["1", 0], filename_prefix="conformance"),
    }


REFUSED = {
    "a required input is missing": (image(height=...), {"1": ["required_input_missing"]}),
    "a value is too small": (image(width=0), {"1": ["value_smaller_than_min"]}),
    "a value is too big": (image(width=1_000_000), {"1": ["value_bigger_than_max"]}),
    "a value has another type": (image(width="abc"), {"1": ["invalid_input_type"]}),
    "a value is null": (image(width=None), {"1": ["invalid_input_type"]}),
    "a value is not among the choices": (
        {
            **image(),
            "3": node(
                "ImageScale", image=["1", 0], upscale_method="magic", width=8, height=8, crop="disabled"
            ),
            "2": node("SaveImage", images=["3", 0], filename_prefix="x"),
        },
        {"3": ["value_not_in_list"]},
    ),
    "a link has another type": (
        {
            "1": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
        },
        {"2": ["return_type_mismatch"]},
    ),
    "a link is no pair": (
        {**image(), "2": node("SaveImage", images=["1"], filename_prefix="x")},
        {"2": ["bad_linked_input"]},
    ),
    "a link leads to no node": (
        {"2": node("SaveImage", images=["1", 0], filename_prefix="x")},
        {"2": ["exception_during_validation"]},
    ),
    "an image file is absent": (
        {
            "1": node("LoadImage", image="absent.png"),
            "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
        },
        {"1": ["custom_validation_failed"]},
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_graph_is_refused_with_its_errors_by_node_if(comfy: Comfy, what: str) -> None:
    graph, wanted = REFUSED[what]
    response = await comfy.post("/prompt", {"prompt": graph})
    body = response.json()
    assert response.status_code == 400
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert errors_of(body) == wanted
    for found in body["node_errors"].values():
        assert found["dependent_outputs"] == ["2"]
        for error in found["errors"]:
            assert {"type", "message", "details", "extra_info"} <= set(error)


async def test_an_error_of_a_value_names_the_input_its_config_and_the_value(comfy: Comfy) -> None:
    response = await comfy.post("/prompt", {"prompt": image(width=0)})
    [error] = response.json()["node_errors"]["1"]["errors"]
    assert error["details"] == "width"
    assert error["extra_info"]["input_name"] == "width"
    assert error["extra_info"]["input_config"][0] == "INT"
    assert error["extra_info"]["received_value"] == 0


async def test_a_graph_without_outputs_is_refused(comfy: Comfy) -> None:
    for graph in ({}, {"1": image()["1"]}):
        response = await comfy.post("/prompt", {"prompt": graph})
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "prompt_no_outputs"


async def test_an_unknown_class_is_named(comfy: Comfy) -> None:
    graph = {"1": node("NoSuchNode"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    response = await comfy.post("/prompt", {"prompt": graph})
    assert response.status_code == 400
    error = response.json()["error"]
    if not comfy.features.numbered:
        assert "NoSuchNode" in str(error)
        return
    known = comfy.features.missing_node_type
    assert error["type"] == ("missing_node_type" if known else "invalid_prompt")
    assert "'#1'" in error["details"]


async def test_a_cycle_is_refused(comfy: Comfy) -> None:
    needs(comfy.features.cycle_check, "check for cycles")
    graph = {
        "1": node("ImageInvert", image=["2", 0]),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    body = (await comfy.post("/prompt", {"prompt": graph})).json()
    assert errors_of(body) == {"1": ["dependency_cycle"], "2": ["dependency_cycle"]}


async def test_a_number_as_a_text_is_accepted(comfy: Comfy) -> None:
    _, entry = await comfy.run(image(width="32", color=unique()))
    assert entry["prompt"][2]["1"]["inputs"]["width"] == 32


async def test_the_outputs_that_are_right_run_although_others_are_refused(comfy: Comfy) -> None:
    graph = {**picture_graph(), "4": node("PreviewImage")}
    response = await comfy.post("/prompt", {"prompt": graph})
    assert response.status_code == 200
    assert errors_of(response.json()) == {"4": ["required_input_missing"]}
    await comfy.idle()
    entry = await comfy.history(response.json()["prompt_id"])
    assert list(entry["outputs"]) == ["3"]


async def test_the_same_id_and_number_twice_is_told_as_an_error_and_runs_all_the_same(comfy: Comfy) -> None:
    needs(comfy.features.progress_state, "prompt ids of the client")
    client, twice = uuid.uuid4().hex, str(uuid.uuid4())
    async with comfy.socket(client) as sock:
        await comfy.submit(loop_graph(10), client)
        await sock.until(lambda frame: frame[0] == "progress")
        body = {"client_id": client, "prompt_id": twice, "number": 1e6}
        statuses = [
            (await comfy.post("/prompt", {"prompt": picture_graph(), **body})).status_code for _ in range(2)
        ]
        assert statuses == [200, 500]
        assert (await comfy.queue())[1] == [twice, twice]
        await comfy.idle()
        await sock.until(lambda _: sock.kinds().count("execution_success") == 3)


# --- a run ------------------------------------------------------------------------------------------------


async def test_a_run_tells_its_nodes_in_an_order_of_their_links_and_its_end_last(comfy: Comfy) -> None:
    frames, _ = await comfy.run(picture_graph())
    kinds = [kind for kind, _ in frames if kind != "progress_state"]
    success = ["execution_success"] if comfy.features.numbered else []
    assert kinds == [
        "execution_start",
        "execution_cached",
        "executing",
        "executing",
        "executing",
        "executed",
        *success,
        "executing",
    ]
    assert [data["node"] for kind, data in frames if kind == "executing"] == ["1", "2", "3", None]


async def test_a_status_follows_a_submission_and_comes_before_the_end_is_told(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        begin = len(sock.frames)
        prompt_id = await comfy.submit(picture_graph(), client)
        await sock.end_of(prompt_id)
        told = [(kind, data) for kind, data in sock.frames[begin:] if kind != "progress_state"]
    remaining = [data["status"]["exec_info"]["queue_remaining"] for kind, data in told if kind == "status"]
    assert remaining == [1, 1, 0]
    assert [kind for kind, _ in told][-2:] == ["status", "executing"]


async def test_the_end_is_told_after_the_history_is_written(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        for _ in range(10):
            prompt_id = await comfy.submit(picture_graph(), client)
            await sock.end_of(prompt_id)
            assert (await comfy.history(prompt_id))["status"]["completed"] is True


async def test_the_history_says_what_was_made_and_how_it_ended(comfy: Comfy) -> None:
    graph = picture_graph()
    _, entry = await comfy.run(graph)
    assert entry["prompt"][2] == graph
    assert entry["prompt"][4] == ["3"]
    [file] = entry["outputs"]["3"]["images"]
    assert set(file) == {"filename", "subfolder", "type"}
    assert file["type"] == "output"
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    messages = [kind for kind, _ in entry["status"]["messages"]]
    success = ["execution_success"] if comfy.features.numbered else []
    assert messages == ["execution_start", "execution_cached", *success]
    assert ("meta" in entry) is comfy.features.numbered


async def test_times_and_the_shown_node_are_told_by_numbered_versions(comfy: Comfy) -> None:
    frames, _ = await comfy.run(picture_graph())
    for kind, data in frames:
        if kind.startswith("execution_"):
            assert ("timestamp" in data) is comfy.features.numbered
        if kind == "executed" or (kind == "executing" and data["node"] is not None):
            assert ("display_node" in data) is comfy.features.numbered


async def test_each_file_of_the_history_can_be_viewed(comfy: Comfy) -> None:
    graph = picture_graph()
    graph["4"] = node("PreviewImage", images=["1", 0])
    _, entry = await comfy.run(graph)
    assert {file["type"] for out in entry["outputs"].values() for file in out["images"]} == {"output", "temp"}
    for response in await comfy.files(entry):
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/png"
        assert response.content.startswith(b"\x89PNG")


async def test_nodes_do_not_run_in_the_order_of_the_graph(comfy: Comfy) -> None:
    graph = {
        "6": node("SaveImage", images=["5", 0], filename_prefix="x"),
        "5": node("ImageBatch", image1=["1", 0], image2=["4", 0]),
        "4": node("EmptyImage", width=8, height=8, batch_size=1, color=unique()),
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=unique()),
    }
    frames, _ = await comfy.run(graph)
    order = [data["node"] for kind, data in frames if kind == "executing"]
    assert set(order[:2]) == {"1", "4"}
    assert order[2:] == ["5", "6", None]


async def test_progress_names_its_prompt_and_node_and_reaches_the_end(comfy: Comfy) -> None:
    frames, _ = await comfy.run(loop_graph(5, 20, "JPEG"))
    progress = [data for kind, data in frames if kind == "progress"]
    assert [data["value"] for data in progress] == [1, 2, 3, 4, 5]
    assert {(data["node"], data["max"]) for data in progress} == {("1", 5)}


async def test_the_state_of_all_nodes_that_began_is_told_by_versions_that_can(comfy: Comfy) -> None:
    frames, _ = await comfy.run(loop_graph(3, 20, "JPEG"))
    states = [data["nodes"] for kind, data in frames if kind == "progress_state"]
    if not comfy.features.progress_state:
        assert not states
        return
    assert set(states[0]) == {"1"}
    assert states[0]["1"]["state"] == "running"
    assert {name: one["state"] for name, one in states[-1].items()} == {"1": "finished", "2": "finished"}
    assert states[-1]["1"] == {
        "value": 3,
        "max": 3,
        "state": "finished",
        "node_id": "1",
        "prompt_id": frames[0][1]["prompt_id"],
        "display_node_id": "1",
        "parent_node_id": None,
        "real_node_id": "1",
    }


async def test_progress_without_previews_is_told_seldom_by_versions_that_throttle(comfy: Comfy) -> None:
    frames, _ = await comfy.run(loop_graph(40, 5))
    values = [data["value"] for kind, data in frames if kind == "progress"]
    assert values[-1] == 40
    if comfy.features.throttle:
        assert len(values) < 20
    else:
        assert values == list(range(1, 41))


async def test_the_same_prompt_again_is_cached_and_names_the_old_files(comfy: Comfy) -> None:
    graph = picture_graph()
    _, first = await comfy.run(graph)
    frames, second = await comfy.run(graph)
    [cached] = [data["nodes"] for kind, data in frames if kind == "execution_cached"]
    assert set(cached) == {"1", "2", "3"}
    assert [data["node"] for kind, data in frames if kind == "executing"] == [None]
    assert second["outputs"] == first["outputs"]
    executed = [data["output"] for kind, data in frames if kind == "executed"]
    assert executed == ([first["outputs"]["3"]] if comfy.features.numbered else [])
    states = [data["nodes"] for kind, data in frames if kind == "progress_state"]
    assert [list(nodes) for nodes in states] == ([["3"]] if comfy.features.progress_state else [])
    assert all(nodes["3"]["state"] == "finished" for nodes in states)


async def test_only_what_follows_a_changed_input_runs_again(comfy: Comfy) -> None:
    graph = picture_graph()
    await comfy.run(graph)
    graph["3"]["inputs"]["filename_prefix"] = "changed"
    frames, entry = await comfy.run(graph)
    [cached] = [data["nodes"] for kind, data in frames if kind == "execution_cached"]
    assert set(cached) == {"1", "2"}
    assert [data["node"] for kind, data in frames if kind == "executing"] == ["3", None]
    assert entry["outputs"]["3"]["images"][0]["filename"].startswith("changed")


async def test_a_failing_node_is_named_with_its_exception(comfy: Comfy) -> None:
    frames, entry = await comfy.run(loop_graph(6, 5, fail_at=3))
    [error] = [data for kind, data in frames if kind == "execution_error"]
    assert (error["node_id"], error["node_type"]) == ("1", "RecLoop")
    assert error["exception_type"] == "ValueError"
    assert error["exception_message"].strip() == "RecLoop fails at step 3 on request"
    assert {"traceback", "current_inputs", "current_outputs", "executed"} <= set(error)
    assert is_end(frames[-1], frames[0][1]["prompt_id"])
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["completed"] is False
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert entry["outputs"] == {}


async def test_a_failed_prompt_keeps_the_outputs_of_what_had_ended(comfy: Comfy) -> None:
    graph = picture_graph()
    graph["4"] = loop_graph(3)["1"]
    # Farther from its output than the other branch, or either might run first: ComfyUI keeps outputs in a set.
    graph["7"] = node("ImageInvert", image=["4", 0])
    graph["5"] = node("RecFail", image=["7", 0], message="boom ünïcode")
    graph["6"] = node("SaveImage", images=["5", 0], filename_prefix="never")
    frames, entry = await comfy.run(graph)
    [error] = [data for kind, data in frames if kind == "execution_error"]
    assert error["node_id"] == "5"
    assert error["exception_message"].strip() == "boom ünïcode"
    assert set(entry["outputs"]) == {"3"}
    assert entry["status"]["completed"] is False


async def test_an_expanded_node_runs_as_nodes_that_are_shown_as_itself(comfy: Comfy) -> None:
    needs(comfy.features.numbered, "expansion of nodes")
    graph = {
        "1": node("RecExpand", steps=2, seed=unique()),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    frames, entry = await comfy.run(graph)
    executing = [(data["node"], data.get("display_node")) for kind, data in frames if kind == "executing"]
    assert executing == [("1", "1"), ("1.0.0.1", "1"), ("1.0.0.2", "1"), ("2", "2"), (None, None)]
    named = "1.0.0.1" if comfy.features.progress_state else "1"
    assert {data["node"] for kind, data in frames if kind == "progress"} == {named}
    assert list(entry["outputs"]) == ["2"]


async def test_asynchronous_nodes_run_at_the_same_time(comfy: Comfy) -> None:
    needs(comfy.features.progress_state, "asynchronous nodes")
    graph = {
        "1": node("RecAsync", steps=3, delay_ms=120, seed=unique()),
        "2": node("RecAsync", steps=3, delay_ms=120, seed=unique()),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="x"),
    }
    frames, _ = await comfy.run(graph)
    states = [data["nodes"] for kind, data in frames if kind == "progress_state"]
    assert any(
        {name for name, one in nodes.items() if one["state"] == "running"} == {"1", "2"} for nodes in states
    )


async def test_a_preview_method_can_be_chosen_per_prompt_by_versions_that_can(comfy: Comfy) -> None:
    needs(comfy.features.preview_method, "preview method per prompt")
    checkpoints = await comfy.get("/models/checkpoints")
    if "tiny_sd15_random.safetensors" not in checkpoints:
        pytest.skip("the server lacks the tiny checkpoint")
    client = uuid.uuid4().hex
    counts = []
    for method in ("none", "latent2rgb"):
        async with comfy.socket(client) as sock:
            extra = {"preview_method": method}
            prompt_id = await comfy.submit(sampling_graph(), client, extra_data=extra)
            await sock.end_of(prompt_id)
            counts.append(sock.kinds().count("binary 4"))
    assert counts == [0, 2]


# --- cancellation -----------------------------------------------------------------------------------------


async def test_a_waiting_prompt_that_is_deleted_leaves_no_trace(comfy: Comfy) -> None:
    running = await comfy.submit(loop_graph(50))
    waiting = await comfy.submit(picture_graph())
    response = await comfy.post("/queue", {"delete": [waiting]})
    assert (response.status_code, response.content) == (200, b"")
    assert waiting not in (await comfy.queue())[1]
    assert await comfy.get(f"/history/{waiting}") == {}
    await comfy.post("/interrupt", {"prompt_id": running})


async def test_deleting_a_running_or_unknown_prompt_from_the_queue_does_nothing(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        prompt_id = await comfy.submit(loop_graph(8), client)
        await sock.until(lambda frame: frame[0] == "progress")
        response = await comfy.post("/queue", {"delete": [prompt_id, str(uuid.uuid4())]})
        assert response.status_code == 200
        await sock.end_of(prompt_id)
    assert (await comfy.history(prompt_id))["status"]["completed"] is True


async def test_clearing_the_queue_spares_what_runs(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        running = await comfy.submit(loop_graph(20), client)
        await sock.until(lambda frame: frame[0] == "progress")
        for _ in range(2):
            await comfy.submit(picture_graph(), client)
        await comfy.post("/queue", {"clear": True})
        assert await comfy.queue() == ([running], [])


async def test_an_interrupted_prompt_says_so_in_an_event_and_in_its_history(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        prompt_id = await comfy.submit(loop_graph(500), client)
        await sock.until(lambda frame: frame[0] == "progress")
        response = await comfy.post("/interrupt", {"prompt_id": prompt_id})
        assert (response.status_code, response.content) == (200, b"")
        frames = await sock.end_of(prompt_id)
    [told] = [data for kind, data in frames if kind == "execution_interrupted"]
    assert (told["node_id"], told["node_type"], told["executed"]) == ("1", "RecLoop", [])
    assert "execution_success" not in [kind for kind, _ in frames]
    entry = await comfy.history(prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


async def test_an_interrupt_of_an_unknown_id_hits_what_runs_only_before_ids_were_heeded(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        prompt_id = await comfy.submit(loop_graph(15), client)
        await sock.until(lambda frame: frame[0] == "progress")
        response = await comfy.post("/interrupt", {"prompt_id": str(uuid.uuid4())})
        assert response.status_code == 200
        await sock.end_of(prompt_id)
    completed = (await comfy.history(prompt_id))["status"]["completed"]
    assert completed is comfy.features.interrupt_by_id


async def test_an_interrupt_without_an_id_hits_what_runs(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        prompt_id = await comfy.submit(loop_graph(500), client)
        await sock.until(lambda frame: frame[0] == "progress")
        await comfy.post("/interrupt")
        await sock.end_of(prompt_id)
    assert (await comfy.history(prompt_id))["status"]["completed"] is False


async def test_an_interrupt_while_nothing_runs_does_not_hit_the_next_prompt(comfy: Comfy) -> None:
    assert (await comfy.post("/interrupt", {})).status_code == 200
    _, entry = await comfy.run(loop_graph(2))
    assert entry["status"]["completed"] is True


async def test_a_node_that_tells_no_progress_runs_to_its_end_before_it_is_interrupted(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        prompt_id = await comfy.submit(loop_graph(4, 50, deaf=True), client)
        await sock.until(lambda frame: frame[0] == "executing")
        await comfy.post("/interrupt", {"prompt_id": prompt_id})
        frames = await sock.end_of(prompt_id)
    [told] = [data for kind, data in frames if kind == "execution_interrupted"]
    assert told["node_id"] == "2"


async def test_jobs_tell_the_state_of_a_prompt_where_there_are_jobs(comfy: Comfy) -> None:
    response = await comfy.http.get(f"/api/jobs/{uuid.uuid4()}")
    assert response.status_code == 404
    if not comfy.features.jobs:
        assert (await comfy.http.get("/api/jobs")).status_code == 404
        return
    assert response.json() == {"error": "Job not found"}
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        done = await comfy.submit(picture_graph(), client)
        failed = await comfy.submit(loop_graph(2, 5, fail_at=1), client)
        running = await comfy.submit(loop_graph(500), client)
        waiting = await comfy.submit(picture_graph(), client)
        await sock.until(lambda frame: frame[0] == "progress" and frame[1]["prompt_id"] == running)
        ids = (done, failed, running, waiting)
        states = [(await comfy.get(f"/api/jobs/{prompt_id}"))["status"] for prompt_id in ids]
        assert states == ["completed", "failed", "in_progress", "pending"]
        listed = await comfy.get("/api/jobs", status="pending,in_progress")
        assert {job["id"] for job in listed["jobs"]} == {running, waiting}
    wrong = await comfy.http.get("/api/jobs", params={"status": "bogus"})
    assert wrong.status_code == 400


async def test_a_job_can_be_cancelled_in_any_state_where_jobs_can_be(comfy: Comfy) -> None:
    needs(comfy.features.jobs_cancel, "cancellation of jobs")
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        running = await comfy.submit(loop_graph(500), client)
        waiting = await comfy.submit(picture_graph(), client)
        await sock.until(lambda frame: frame[0] == "progress")
        assert (await comfy.post(f"/api/jobs/{waiting}/cancel")).json() == {"cancelled": True}
        assert (await comfy.http.get(f"/api/jobs/{waiting}")).status_code == 404
        assert (await comfy.post(f"/api/jobs/{running}/cancel")).json() == {"cancelled": True}
        await sock.end_of(running)
    assert (await comfy.get(f"/api/jobs/{running}"))["status"] == "cancelled"
    assert (await comfy.post(f"/api/jobs/{running}/cancel")).json() == {"cancelled": False}
    unknown = {"job_ids": [str(uuid.uuid4())]}
    assert (await comfy.post("/api/jobs/cancel", unknown)).json() == {"cancelled": False}
    assert (await comfy.post("/api/jobs/cancel", {"job_ids": ["x"]})).status_code == 400


# --- history and files ------------------------------------------------------------------------------------


async def test_the_history_can_be_asked_in_parts_and_be_deleted(comfy: Comfy) -> None:
    await comfy.post("/history", {"clear": True})
    ids = [await comfy.submit(picture_graph()) for _ in range(3)]
    await comfy.idle()
    assert list(await comfy.get("/history")) == ids
    assert list(await comfy.get("/history", max_items=2)) == ids[1:]
    if comfy.features.history_offset:
        assert list(await comfy.get("/history", max_items=2, offset=0)) == ids[:2]
    response = await comfy.post("/history", {"delete": [ids[0], str(uuid.uuid4())]})
    assert (response.status_code, response.content) == (200, b"")
    assert list(await comfy.get("/history")) == ids[1:]
    assert await comfy.get(f"/history/{ids[0]}") == {}
    await comfy.post("/history", {"clear": True})
    assert await comfy.get("/history") == {}


async def test_what_is_no_file_cannot_be_viewed(comfy: Comfy) -> None:
    assert (await comfy.http.get("/view")).status_code == 404
    absent = await comfy.http.get("/view", params={"filename": f"{uuid.uuid4()}.png"})
    assert (absent.status_code, absent.content) == (404, b"")
    assert (await comfy.http.get("/view", params={"filename": "../x"})).status_code == 400


async def upload(comfy: Comfy, name: str, data: bytes, **fields: str) -> Any:
    """What an upload is answered with."""
    files = {"image": (name, data, "image/png")}
    response = await comfy.http.post("/upload/image", files=files, data=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def a_png(comfy: Comfy) -> bytes:
    """A picture as the server makes it."""
    _, entry = await comfy.run(picture_graph())
    [response] = await comfy.files(entry)
    return response.content


async def test_an_upload_keeps_its_name_only_for_the_same_content(comfy: Comfy) -> None:
    name, first, second = f"{uuid.uuid4().hex}.png", await a_png(comfy), await a_png(comfy)
    assert await upload(comfy, name, first) == {"name": name, "subfolder": "", "type": "input"}
    other = (await upload(comfy, name, second))["name"]
    assert other == name.replace(".png", " (1).png")
    if comfy.features.numbered:
        assert (await upload(comfy, name, first))["name"] == name
    assert (await upload(comfy, name, second, overwrite="true"))["name"] == name
    found = await comfy.http.get("/view", params={"filename": name, "type": "input"})
    assert found.content == second


async def test_an_upload_can_have_a_subfolder_but_not_leave_its_own(comfy: Comfy) -> None:
    data = await a_png(comfy)
    name = f"{uuid.uuid4().hex}.png"
    told = await upload(comfy, name, data, subfolder="sub/dir")
    assert told == {"name": name, "subfolder": "sub/dir", "type": "input"}
    params = {"filename": name, "type": "input", "subfolder": "sub/dir"}
    assert (await comfy.http.get("/view", params=params)).content == data
    files = {"image": ("e.png", data, "image/png")}
    response = await comfy.http.post("/upload/image", files=files, data={"subfolder": "../../x"})
    assert response.status_code == 400
    assert (await comfy.http.post("/upload/image", files={"x": ("y", b"z")})).status_code == 400


async def test_an_uploaded_picture_can_be_loaded_and_what_is_none_fails(comfy: Comfy) -> None:
    def loads(name: str) -> Graph:
        return {
            "1": node("LoadImage", image=name),
            "2": node("ImageInvert", image=["1", 0]),
            "3": node("SaveImage", images=["2", 0], filename_prefix="loaded"),
        }

    name = f"{uuid.uuid4().hex}.png"
    await upload(comfy, name, await a_png(comfy))
    _, entry = await comfy.run(loads(name))
    assert entry["status"]["completed"] is True
    await upload(comfy, f"no-{name}", b"not an image")
    _, entry = await comfy.run(loads(f"no-{name}"))
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert entry["status"]["messages"][-1][1]["node_id"] == "1"


async def test_the_server_answers_while_a_prompt_runs(comfy: Comfy) -> None:
    prompt_id = await comfy.submit(loop_graph(20, 10, "JPEG"))
    answers = await asyncio.gather(*(comfy.http.get("/prompt") for _ in range(10)))
    assert {response.status_code for response in answers} == {200}
    await comfy.idle()
    assert (await comfy.history(prompt_id))["status"]["completed"] is True
