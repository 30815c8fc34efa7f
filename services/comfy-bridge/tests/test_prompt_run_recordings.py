"""Every recorded prompt through `PromptRun`: as it was, and with its frames lost, doubled, late and shuffled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie_comfy_bridge.run.attribution import Attribution
from reverie_comfy_bridge.run.events import (
    Ended,
    EndReason,
    Event,
    ImageSent,
    LookNow,
    LookReason,
    Outcome,
    PreviewShown,
    Progressed,
    Started,
    Taken,
    TextSent,
)
from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.prompt_run import Look, PromptRun
from reverie_comfy_bridge.wire.answers import read_post_answer
from reverie_comfy_bridge.wire.frames import ExecutionStart, Frame, ProgressState, read_frame
from reverie_comfy_bridge.wire.queue import History, Queue, QueuedPrompt, read_history
from reverie_protocol.jobs import ComfyNodeError, ComfyNodeState
from reverie_testing.fake_comfy import recorded

UNKNOWN = "00000000-0000-0000-0000-000000000000"


class Case(msgspec.Struct, frozen=True):
    """A prompt that was recorded: what was sent and answered, the frames of its client's sockets, how it ended."""

    name: str
    graph: Graph
    asked_id: str
    client_id: str
    posted_at: float
    answered_at: float
    status: int
    body: bytes
    frames: tuple[tuple[float, Frame], ...]
    prompt_id: str
    history: History


def recorded_cases() -> Iterator[Case]:
    for version in recorded.versions():
        for scenario in recorded.scenarios(version):
            yield from cases_of(version, scenario)


@cache
def cases_of(version: str, scenario: str) -> tuple[Case, ...]:
    lines = recorded.lines(version, scenario)
    histories = dict(_histories(lines))
    return tuple(
        _case(f"{version}/{scenario}/{number}", request, answer, _frames(lines, request), histories)
        for number, (request, answer) in enumerate(_posts(lines))
    )


def _case(
    name: str,
    request: recorded.Line,
    answer: recorded.Line,
    frames: tuple[tuple[float, Frame], ...],
    histories: dict[str, dict[str, Any]],
) -> Case:
    prompt_id = answer["json"]["prompt_id"]
    entry = histories.get(prompt_id)
    history = read_history(json.dumps({prompt_id: entry} if entry else {}).encode())
    assert history is not None
    return Case(
        name=name,
        graph=Graph.read(request["body"]["prompt"]),
        asked_id=request["body"].get("prompt_id", UNKNOWN),
        client_id=str(request["body"].get("client_id")),
        posted_at=request["t"],
        answered_at=answer["t"],
        status=answer["status"],
        body=json.dumps(answer["json"]).encode(),
        frames=frames,
        prompt_id=prompt_id,
        history=history,
    )


def _posts(lines: Iterable[recorded.Line]) -> Iterator[tuple[recorded.Line, recorded.Line]]:
    """Accepted prompts with the requests they answer; requests were made one after the other."""
    request = None
    for line in lines:
        if line["kind"] == "http_req" and line["method"] == "POST" and line["path"] == "/prompt":
            request = line
        elif line["kind"] == "http_res" and line["path"] == "/prompt" and request is not None:
            if "prompt_id" in line.get("json", {}) and isinstance(request["body"].get("prompt"), dict):
                yield request, line
            request = None


def _histories(lines: Iterable[recorded.Line]) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in lines:
        if line["kind"] == "http_res" and line["path"].startswith("/history/") and "json" in line:
            yield from line["json"].items()


def _frames(lines: Iterable[recorded.Line], request: recorded.Line) -> tuple[tuple[float, Frame], ...]:
    """What the sockets of the request's client heard since it was sent, through `Attribution`."""
    client_id, sockets, attribution = request["body"].get("client_id"), set(), Attribution()
    found: list[tuple[float, Frame]] = []
    for line in lines:
        if line["kind"] == "ws_open" and line["client_id"] == client_id:
            sockets.add(line["conn"])
            attribution.opened()
        message = recorded.message(line) if line.get("conn") in sockets else None
        frame = read_frame(message) if message is not None else None
        attributed = attribution.attribute(frame) if frame is not None else None
        if attributed is not None and line["t"] >= request["t"]:
            found.append((line["t"], attributed))
    return tuple(found)


CASES = list(recorded_cases())
WITH_HISTORY = [case for case in CASES if case.history.entries]


def begin(case: Case) -> tuple[PromptRun, list[Event]]:
    run = PromptRun(
        instance="one", prompt_id=case.asked_id, client_id=case.client_id, graph=case.graph, mark={"job": "j"}
    )
    return run, run.posting(case.posted_at)


def answer(run: PromptRun, case: Case) -> list[Event]:
    return run.answered(read_post_answer(case.status, case.body), case.answered_at)


def replay(case: Case) -> tuple[PromptRun, list[Event]]:
    """The prompt as it was recorded, up to but without any look."""
    run, events = begin(case)
    answered = False
    for at, frame in case.frames:
        if not answered and at >= case.answered_at:
            answered = True
            events.extend(answer(run, case))
        events.extend(run.heard(frame, at))
    if not answered:
        events.extend(answer(run, case))
    return run, events


def look(history: History, *, began: float, queue: Queue | None = None) -> Look:
    return Look(began, queue or Queue(), history)


def the_end(events: Iterable[Event]) -> Ended:
    (ended,) = [event for event in events if isinstance(event, Ended)]
    return ended


def expected_outcome(case: Case) -> Outcome:
    return {"success": Outcome.SUCCESS, "error": Outcome.FAILED, "interrupted": Outcome.INTERRUPTED}[
        case.history.entries[0].status.value
    ]


def named(version: str, scenario: str, number: int) -> Case:
    return cases_of(version, scenario)[number]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frames_alone_end_nothing(case: Case) -> None:
    run, events = replay(case)
    assert not run.ended
    assert not [event for event in events if isinstance(event, Ended)]
    assert Taken in map(type, events)
    assert run.prompt_id == case.prompt_id


@pytest.mark.parametrize("case", WITH_HISTORY, ids=lambda case: case.name)
def test_the_history_ends_a_prompt_once_with_its_outputs(case: Case) -> None:
    run, events = replay(case)
    events.extend(run.looked(look(case.history, began=1e6), 1e6))
    events.extend(run.looked(look(case.history, began=1e6 + 5), 1e6 + 5))
    events.extend(run.looked(look(History(), began=1e6 + 10), 1e6 + 10))
    ended = the_end(events)
    assert ended.outcome is expected_outcome(case)
    assert ended.reason is EndReason.HISTORY
    assert ended.outputs == case.history.entries[0].outputs
    assert ended.run.prompt_id == case.prompt_id
    assert run.ended


@pytest.mark.parametrize("case", WITH_HISTORY, ids=lambda case: case.name)
def test_progress_rises_and_is_whole_at_a_successful_end_only(case: Case) -> None:
    run, events = replay(case)
    events.extend(run.looked(look(case.history, began=1e6), 1e6))
    ended = the_end([*events, *run.looked(look(case.history, began=1e6 + 5), 1e6 + 5)])
    fractions = [event.fraction for event in events if isinstance(event, Progressed)]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction < 1 for fraction in fractions)
    assert (ended.fraction == 1.0) is (ended.outcome is Outcome.SUCCESS)
    assert ended.fraction >= max(fractions, default=0.0)


@pytest.mark.parametrize("case", WITH_HISTORY, ids=lambda case: case.name)
def test_the_end_that_the_socket_heard_asks_for_a_look(case: Case) -> None:
    _, events = replay(case)
    heard = any(isinstance(f, ExecutionStart) and f.prompt_id == case.prompt_id for _, f in case.frames)
    reasons = {event.reason for event in events if isinstance(event, LookNow)}
    if heard:
        assert LookReason.ENDED in reasons


@pytest.mark.parametrize("version", recorded.versions())
def test_a_sampler_makes_most_of_the_progress_and_every_node_is_named(version: str) -> None:
    case = named(version, "s04_sd_previews_with_metadata", 0)
    run, events = replay(case)
    told = [event for event in events if isinstance(event, Progressed)]
    sampling = [event for event in told if event.title == "KSampler"]
    assert sampling[-1].steps == sampling[-1].step > 1
    assert max(event.fraction for event in sampling) - min(event.fraction for event in sampling) > 0.1
    ended = the_end(run.looked(look(case.history, began=1e6), 1e6))
    assert {node.class_type for node in ended.run.nodes} == {
        node.class_type for node in case.graph.nodes.values()
    }
    assert all(node.state is ComfyNodeState.FINISHED and node.progress == 1.0 for node in ended.run.nodes)
    assert ended.run.nodes_total == ended.run.nodes_seen == len(case.graph.nodes)
    assert ended.run.current == ()
    assert sum(node.seconds for node in ended.run.nodes) > 0


@pytest.mark.parametrize("version", recorded.versions())
def test_previews_are_those_of_the_node_that_runs(version: str) -> None:
    _, events = replay(named(version, "s12_ws_reconnect_mid_run", 0))
    previews = [event for event in events if isinstance(event, PreviewShown)]
    assert len(previews) > 10
    assert {preview.node for preview in previews} == {"1"}


def test_after_a_reconnect_the_next_progress_state_restores_all() -> None:
    _, events = replay(named("0.33.0", "s12_ws_reconnect_mid_run", 0))
    steps = [event.step for event in events if isinstance(event, Progressed) and event.node == "1"]
    assert steps == sorted(steps)
    assert {5, 20, 40} <= set(steps)


def test_a_job_that_ran_while_nobody_listened_ends_by_its_history() -> None:
    case = named("0.33.0", "s12_ws_reconnect_mid_run", 1)
    run, events = replay(case)
    assert run.heard_at is None
    assert Started not in map(type, events)
    assert the_end(run.looked(look(case.history, began=1e6), 1e6)).outcome is Outcome.SUCCESS


def test_what_expansion_makes_is_folded_into_the_node_a_person_sees() -> None:
    case = named("0.33.0", "s17_node_expansion_and_async", 0)
    run, events = replay(case)
    assert {node.id for node in run.snapshot().nodes} == {"1", "2"}
    expanded = [event for event in events if isinstance(event, Progressed) and event.node == "1"]
    assert [event.step for event in expanded if event.steps == 3][:3] == [1, 2, 3]
    assert {preview.node for preview in events if isinstance(preview, PreviewShown)} == {"1"}


def test_nodes_that_run_at_once_are_all_current() -> None:
    _, events = replay(named("0.33.0", "s17_node_expansion_and_async", 1))
    assert ("1", "2") in {event.run.current for event in events if isinstance(event, Progressed)}


@pytest.mark.parametrize("version", recorded.versions())
def test_a_cached_run_says_which_outputs_are_old(version: str) -> None:
    case = named(version, "s06_cached_second_run", 1)
    run, _ = replay(case)
    ended = the_end(run.looked(look(case.history, began=1e6), 1e6))
    assert set(ended.cached) == set(case.graph.nodes)
    assert {node.state for node in ended.run.nodes} == {ComfyNodeState.CACHED}
    assert ended.fraction == 1.0
    (again,) = run.files_gone(ended.outputs.files[:1])
    assert again.nodes == (ended.outputs.files[0].node,)


@pytest.mark.parametrize("version", recorded.versions())
def test_a_partly_cached_run_counts_what_is_left_to_do(version: str) -> None:
    case = named(version, "s06_cached_second_run", 2)
    _, events = replay(case)
    first = next(event for event in events if isinstance(event, Progressed) and event.run.nodes)
    assert first.fraction < 0.1
    assert {node.id for node in first.run.nodes if node.state is ComfyNodeState.CACHED} >= {"1", "2", "4"}


@pytest.mark.parametrize("version", recorded.versions())
def test_a_failing_node_is_named_and_what_was_done_is_kept(version: str) -> None:
    case = named(version, "s07_execution_error", 1)
    run, events = replay(case)
    assert LookNow(LookReason.FAILED) in events
    ended = the_end(run.looked(look(case.history, began=1e6), 1e6))
    assert ended.outcome is Outcome.FAILED
    assert [(error.node, error.class_type) for error in ended.node_errors] == [("4", "RecFail")]
    assert ended.message == "RecFail: boom ünïcode"
    assert [file.node for file in ended.outputs.files] == ["2"]
    states = {node.id: node.state for node in ended.run.nodes}
    assert states["4"] is ComfyNodeState.FAILED
    assert states["3"] is ComfyNodeState.FINISHED


def test_texts_of_nodes_are_told() -> None:
    _, events = replay(named("0.33.0", "s16_png_preview_and_text", 0))
    assert [event for event in events if isinstance(event, TextSent)][:2] == [
        TextSent("1", "step 1/3"),
        TextSent("1", "step 2/3"),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_pictures_that_go_over_the_socket_alone_are_outputs(number: int) -> None:
    case = named("0.33.0", "s35_SaveImageWebsocket", number)
    run, events = replay(case)
    sent = [event for event in events if isinstance(event, ImageSent)]
    assert [(event.node, event.index, event.media_type) for event in sent] == [
        ("2", 0, "image/png"),
        ("2", 1, "image/png"),
    ]
    assert not [event for event in events if isinstance(event, PreviewShown)]
    assert the_end(run.looked(look(case.history, began=1e6), 1e6)).missing == ()


def test_pictures_that_nobody_heard_are_missed() -> None:
    case = named("0.33.0", "s35_SaveImageWebsocket", 2)
    run, _ = replay(case)
    assert run.looked(look(case.history, began=1e6), 1e6) == []
    ended = the_end(run.looked(look(case.history, began=1e6 + 2), 1e6 + 2))
    assert ended.outcome is Outcome.SUCCESS
    assert ended.missing == ("2",)


def test_a_history_that_is_faster_than_the_socket_waits_for_its_pictures() -> None:
    case = named("0.33.0", "s35_SaveImageWebsocket", 0)
    run, events = begin(case)
    events.extend(answer(run, case))
    cut = next(at for at, frame in enumerate(case.frames) if isinstance(frame[1], ProgressState))
    for at, frame in case.frames[: cut + 1]:
        events.extend(run.heard(frame, at))
    events.extend(run.looked(look(case.history, began=1.0), 1.0))
    assert not run.ended
    for _, frame in case.frames[cut + 1 :]:
        events.extend(run.heard(frame, 1.5))
    ended = the_end(events)
    assert ended.missing == ()
    assert len([event for event in events if isinstance(event, ImageSent)]) == 2


def test_prompts_lost_by_a_killed_server_are_gone_after_two_looks() -> None:
    for scenario in ("s24_server_sigkill_mid_run", "s25_server_sigterm_mid_run", "s26_server_sigint_mid_run"):
        lost = [case for case in cases_of("0.33.0", scenario) if not case.history.entries]
        assert lost
        for case in lost:
            run, _ = replay(case)
            assert run.looked(look(History(), began=1e6), 1e6) == [LookNow(LookReason.MISSING)]
            ended = the_end(run.looked(look(History(), began=1e6 + 1), 1e6 + 1))
            assert (ended.outcome, ended.reason) == (Outcome.LOST, EndReason.VANISHED)
            assert ended.fraction < 1.0


def plain_end(case: Case) -> tuple[str, tuple[ComfyNodeError, ...]]:
    """What is said of the prompt if all goes as it was recorded."""
    run, _ = replay(case)
    events = [event for at in (1e6, 1e6 + 5) for event in run.looked(look(case.history, began=at), at)]
    ended = the_end(events)
    return ended.message, ended.node_errors


def faulty(frames: tuple[tuple[float, Frame], ...], draw: st.DrawFn) -> list[Frame]:
    """The frames with some lost, some doubled, and some moved to elsewhere."""
    kept = [frame for _, frame in frames]
    numbers = draw(st.lists(st.integers(0, max(len(kept) - 1, 0)), max_size=2 * len(kept) + 2))
    mode = draw(st.sampled_from(["any", "lost", "doubled", "late"]))
    if mode == "any":
        return [kept[number] for number in numbers] if kept else []
    if mode == "lost":
        return [frame for at, frame in enumerate(kept) if at not in set(numbers)]
    if mode == "doubled":
        return [frame for at, frame in enumerate(kept) for _ in range(1 + numbers.count(at))]
    late = set(numbers)
    return [f for at, f in enumerate(kept) if at not in late] + [f for at, f in enumerate(kept) if at in late]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_lost_doubled_late_and_shuffled_frames_change_nothing_in_the_outcome(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(WITH_HISTORY), label="case")
    others = data.draw(st.sampled_from(CASES), label="frames of others")
    frames = data.draw(st.composite(lambda draw: faulty(case.frames, draw))(), label="frames")
    frames += [frame for _, frame in others.frames if getattr(frame, "prompt_id", "") != case.prompt_id]
    looks = sorted(data.draw(st.lists(st.integers(0, len(frames)), max_size=4), label="looks"))
    answered_after = data.draw(st.integers(0, len(frames)), label="answered after")
    inside = Queue(running=(QueuedPrompt(case.prompt_id, mark={"job": "j"}),))

    run, events = begin(case)
    now = case.answered_at
    for at, frame in enumerate(frames):
        now += 0.01
        if at == answered_after:
            events.extend(answer(run, case))
        for _ in range(looks.count(at)):
            events.extend(run.looked(look(History(), began=now, queue=inside), now))
        events.extend(run.heard(frame, now))
        assert not run.ended
    if answered_after == len(frames):
        events.extend(answer(run, case))
    for pause in (0, 5):
        events.extend(run.looked(look(case.history, began=now + pause), now + pause))
    for frame in frames:
        events.extend(run.heard(frame, now + 10))

    ended = the_end(events)
    assert ended.outcome is expected_outcome(case)
    assert ended.outputs == case.history.entries[0].outputs
    assert (ended.message, ended.node_errors) == plain_end(case)
    fractions = [event.fraction for event in events if isinstance(event, Progressed)]
    assert fractions == sorted(fractions)
    assert all(fraction < 1 for fraction in fractions)
    assert (ended.fraction == 1.0) is (ended.outcome is Outcome.SUCCESS)
    assert len([event for event in events if isinstance(event, Started)]) <= 1
    assert len([event for event in events if isinstance(event, Taken)]) <= 2
