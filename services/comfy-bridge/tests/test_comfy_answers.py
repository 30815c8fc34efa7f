"""ComfyUI's HTTP answers: all that was recorded is understood, and what cannot be read proves nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_comfy_bridge.wire.answers import (
    Accepted,
    Denied,
    PostAnswer,
    Refused,
    Uncertain,
    read_features,
    read_post_answer,
    read_queue_remaining,
    read_system_stats,
)
from reverie_comfy_bridge.wire.outputs import OutputFile
from reverie_comfy_bridge.wire.queue import HistoryStatus, read_history, read_queue
from reverie_protocol.jobs import ComfyNodeError
from reverie_testing.fake_comfy import recorded


def answers(version: str, scenario: str, path: str) -> list[tuple[int, bytes]]:
    return [
        (line["status"], body)
        for line in recorded.lines(version, scenario)
        if line["kind"] == "http_res" and line["path"] == path and (body := recorded.body(line)) is not None
    ]


def post_answers(version: str, scenario: str) -> list[PostAnswer]:
    return [read_post_answer(*answer) for answer in answers(version, scenario, "/prompt")]


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def test_each_recorded_objection_is_a_refusal_with_its_type() -> None:
    found = [
        answer for answer in post_answers("0.33.0", "s02_validation_errors") if isinstance(answer, Refused)
    ]
    types = {answer.type for answer in found}
    assert types == {
        "no_prompt",
        "prompt_no_outputs",
        "missing_node_type",
        "prompt_outputs_failed_validation",
        "invalid_prompt_id",
    }
    assert {error.type for answer in found for error in answer.node_errors} == {
        "required_input_missing",
        "value_smaller_than_min",
        "value_bigger_than_max",
        "invalid_input_type",
        "value_not_in_list",
        "return_type_mismatch",
        "bad_linked_input",
        "dependency_cycle",
        "custom_validation_failed",
        "exception_during_validation",
        "missing_node_type",
    }


def test_an_objection_names_node_class_and_field() -> None:
    errors = [
        error
        for answer in post_answers("0.33.0", "s02_validation_errors")
        if isinstance(answer, Refused)
        for error in answer.node_errors
    ]
    assert (
        ComfyNodeError(
            "1",
            "value_smaller_than_min",
            "Value 0 smaller than min of 1",
            class_type="EmptyImage",
            field="width",
            details="width",
        )
        in errors
    )
    missing = next(error for error in errors if error.type == "missing_node_type" and error.class_type)
    assert (missing.node, missing.class_type, missing.title) == ("1", "NopeNode", "My node")


def test_what_was_accepted_with_errors_says_which_outputs_are_dropped() -> None:
    accepted = [
        answer for answer in post_answers("0.33.0", "s02_validation_errors") if isinstance(answer, Accepted)
    ]
    assert {error.node for answer in accepted for error in answer.node_errors} == {"3", "4"}


def test_a_500_says_nothing_about_whether_the_prompt_was_queued() -> None:
    assert any(isinstance(answer, Uncertain) for answer in post_answers("0.33.0", "s18_duplicate_prompt_id"))


@pytest.mark.parametrize("version", recorded.versions())
def test_accepted_prompts_have_an_id_and_a_rising_number(version: str) -> None:
    found = post_answers(version, "s06_cached_second_run")
    accepted = [answer for answer in found if isinstance(answer, Accepted)]
    assert len(accepted) == len(found) == 3
    numbers = [answer.number for answer in accepted]
    assert None not in numbers
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", Uncertain),
        (200, b"{}", Uncertain),
        (200, dump({"prompt_id": {}}), Uncertain),
        (200, dump({"prompt_id": "p", "number": "x", "node_errors": []}), Accepted),
        (400, b"<html>bad request</html>", Denied),
        (400, dump({"error": "text"}), Denied),
        (400, dump({"error": {"type": 4}, "node_errors": 9}), Refused),
        (403, b"", Denied),
        (404, b"", Denied),
        (301, b"", Denied),
        (413, b"too large", Refused),
        (500, b"500 Internal Server Error", Uncertain),
        (502, b"", Uncertain),
        (504, b"\xff\xfe", Uncertain),
    ],
)
def test_an_answer_says_no_more_than_it_can(status: int, body: bytes, kind: type) -> None:
    assert type(read_post_answer(status, body)) is kind


@pytest.mark.parametrize("version", recorded.versions())
def test_a_recorded_queue_lists_what_runs_and_waits(version: str) -> None:
    queues = [read_queue(body) for _, body in answers(version, "s11_two_jobs_queued", "/queue")]
    assert queues
    for queue in queues:
        assert queue is not None
        for prompt in (*queue.running, *queue.pending):
            assert prompt.prompt_id
            assert prompt.number is not None
            assert prompt.client_id
            assert prompt.outputs == ("2",)
            assert queue.find(prompt.prompt_id) is prompt


def test_a_prompt_is_found_by_our_mark_where_the_server_chose_its_id() -> None:
    item = [7, "theirs", {}, {"client_id": "c", "reverie": {"job": "j", "attempt": 2}}, ["9"]]
    queue = read_queue(dump({"queue_running": [item], "queue_pending": [[1, "other", {}, {}, []]]}))
    assert queue is not None
    found = queue.find("ours", {"job": "j", "attempt": 2})
    assert found is queue.running[0]
    assert queue.find("ours", {"job": "j", "attempt": 1}) is None
    assert queue.find("other") is queue.pending[0]
    assert queue.runs("theirs")
    assert not queue.runs("other")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", dump({"queue_running": {}, "queue_pending": []})]
)
def test_an_unreadable_queue_is_none(body: bytes) -> None:
    assert read_queue(body) is None


def test_senseless_entries_of_a_queue_still_count() -> None:
    queue = read_queue(dump({"queue_running": [None, [1], [1, 5, 2]], "queue_pending": [{"prompt_id": "p"}]}))
    assert queue is not None
    assert [prompt.prompt_id for prompt in queue.running] == ["", "", "5"]
    assert not queue.complete
    assert queue.find("p") is not None
    assert read_queue(dump({"queue_running": [[1, "p"]], "queue_pending": []})).complete  # type: ignore[union-attr]  # it is one


def test_a_queue_with_python_only_json_in_a_graph_is_read() -> None:
    item = [1, "p", {"1": {"inputs": {"x": float("nan")}}}, {}, []]
    queue = read_queue(dump({"queue_running": [item], "queue_pending": []}))
    assert queue is not None
    assert queue.runs("p")


def every_history() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (version, prompt_id, entry)
        for version in recorded.versions()
        for scenario in recorded.scenarios(version)
        for line in recorded.lines(version, scenario)
        if line["kind"] == "http_res" and line["path"].startswith("/history/") and "json" in line
        for prompt_id, entry in line["json"].items()
    ]


def test_every_recorded_history_reads_with_its_outcome() -> None:
    seen = set()
    for _, prompt_id, entry in every_history():
        history = read_history(dump({prompt_id: entry}))
        assert history is not None
        found = history.find(prompt_id)
        assert found is not None
        names = [name for name, _ in entry["status"]["messages"]]
        if entry["status"]["status_str"] == "success":
            assert found.status is HistoryStatus.SUCCESS
        elif "execution_interrupted" in names:
            assert found.status is HistoryStatus.INTERRUPTED
        else:
            assert found.status is HistoryStatus.ERROR
            assert found.error is not None
            assert found.error.node
        kept = [file.filename for file in found.outputs.files]
        assert kept == [
            file["filename"] for node in entry["outputs"].values() for file in node.get("images", [])
        ]
        seen.add(found.status)
    assert seen == {HistoryStatus.SUCCESS, HistoryStatus.INTERRUPTED, HistoryStatus.ERROR}


@pytest.mark.parametrize("version", recorded.versions())
def test_a_failed_prompt_keeps_what_was_done_before_and_says_which_node_failed(version: str) -> None:
    last = [body for _, body in _histories(version, "s07_execution_error")][-1]
    history = read_history(last)
    assert history is not None
    (entry,) = history.entries
    assert entry.status is HistoryStatus.ERROR
    (file,) = entry.outputs.files
    assert file == OutputFile("2", "images", file.filename)
    assert file.filename.startswith("partial_")
    assert entry.error == ComfyNodeError("4", "RuntimeError", "boom ünïcode", class_type="RecFail")
    assert set(entry.prompt.outputs) == {"2", "5"}


def _histories(version: str, scenario: str) -> list[tuple[int, bytes]]:
    return [
        (line["status"], body)
        for line in recorded.lines(version, scenario)
        if line["kind"] == "http_res"
        and line["path"].startswith("/history/")
        and (body := recorded.body(line)) is not None
    ]


def test_a_cached_run_says_which_nodes_did_not_run_and_how_long_it_took() -> None:
    second = [body for _, body in _histories("0.33.0", "s06_cached_second_run")][1]
    history = read_history(second)
    assert history is not None
    assert set(history.entries[0].cached) == {"1", "2", "3", "4", "5", "6", "7"}
    assert history.entries[0].seconds == pytest.approx(0.02)


def test_a_history_before_2024_does_not_say_how_it_ended() -> None:
    history = read_history(dump({"p": {"prompt": [1, "p", {}, {}, []], "outputs": {}, "status": None}}))
    assert history is not None
    assert history.entries[0].status is HistoryStatus.UNSAID


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b"12"])
def test_an_unreadable_history_is_none(body: bytes) -> None:
    assert read_history(body) is None


def test_an_error_body_is_no_entry_of_the_history() -> None:
    history = read_history(dump({"error": "gateway timeout", "p": None}))
    assert history is not None
    assert history.entries == ()
    assert history.unreadable == {"error", "p"}


def test_an_empty_history_is_one() -> None:
    history = read_history(b"{}")
    assert history is not None
    assert history.find("p") is None


@pytest.mark.parametrize(("version", "said"), [("0.33.0", "0.33.0"), ("0.3.43", "0.3.43"), ("2024-06", "")])
def test_system_stats_tell_version_and_devices(version: str, said: str) -> None:
    ((_, body),) = answers(version, "s01_http_surface", "/system_stats")[:1]
    stats = read_system_stats(body)
    assert stats is not None
    assert stats.version == said
    assert [device.name for device in stats.devices] == ["cpu"]
    assert stats.devices[0].vram_total_gb > 1


def test_no_more_is_kept_of_a_servers_words_about_itself_than_one_message_holds() -> None:
    device = {"name": "x" * 10_000, "type": "y" * 10_000, "vram_total": 1}
    stats = read_system_stats(
        dump({"system": {"comfyui_version": "9." + "1" * 100_000}, "devices": [device] * 300})
    )
    assert stats is not None
    assert len(msgspec.json.encode(stats)) < 20_000


def test_features_are_known_only_where_the_path_is() -> None:
    ((status, body),) = answers("0.33.0", "s01_http_surface", "/features")
    flags = read_features(status, body)
    assert flags is not None
    assert flags["supports_preview_metadata"] is True
    assert read_features(404, b"{}") is None
    assert read_features(200, b"[]") is None


def test_the_cheap_poll_tells_how_many_are_inside() -> None:
    assert read_queue_remaining(b'{"exec_info": {"queue_remaining": 3}}') == 3
    assert read_queue_remaining(b'{"exec_info": {"queue_remaining": -1}}') is None
    assert read_queue_remaining(b"") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=16,
)
KEYS = st.sampled_from(
    ["prompt_id", "node_errors", "error", "queue_running", "queue_pending", "system", "devices", "p"]
)


@given(st.integers(100, 599), st.dictionaries(KEYS, JSON).map(dump) | st.binary(max_size=64))
def test_no_body_whatever_raises(status: int, body: bytes) -> None:
    read_post_answer(status, body)
    read_queue(body)
    read_history(body)
    read_system_stats(body)
    read_features(status, body)
    read_queue_remaining(body)


@given(
    st.dictionaries(st.sampled_from(["prompt", "outputs", "status"]), JSON)
    | st.fixed_dictionaries(
        {"outputs": JSON, "status": st.fixed_dictionaries({"status_str": JSON, "messages": JSON})}
    )
)
def test_no_history_entry_whatever_raises(entry: object) -> None:
    assert read_history(dump({"p": entry})) is not None
