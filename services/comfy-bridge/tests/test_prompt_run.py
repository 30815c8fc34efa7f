"""`PromptRun`, one rule at a time: what proves an end and what does not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from reverie_comfy_bridge.run.again import TOKEN_INPUT, with_changed_inputs
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
    RunAgain,
    Started,
    Taken,
)
from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.prompt_run import LATE_PICTURES_S, UNCERTAIN_PAUSE_S, Look, PromptRun
from reverie_comfy_bridge.wire.answers import Accepted, Denied, PostAnswer, Refused, Uncertain
from reverie_comfy_bridge.wire.frames import (
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    FeatureFlags,
    Frame,
    NodeProgress,
    Picture,
    Progress,
    ProgressState,
    Status,
)
from reverie_comfy_bridge.wire.outputs import NodeOutputs, OutputFile
from reverie_comfy_bridge.wire.queue import History, HistoryEntry, HistoryStatus, Queue, QueuedPrompt
from reverie_protocol.jobs import ComfyNodeError, ComfyNodeState

ID = "11111111-1111-5111-8111-111111111111"
MARK = {"job": "j", "attempt": 1}
WORKFLOW: dict[str, object] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "2": {"class_type": "KSampler", "inputs": {"steps": 20, "model": ["1", 0]}, "_meta": {"title": "Draw"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}
SENDING: dict[str, object] = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
}
FILE = OutputFile("3", "images", "a.png")
WAITS = Queue(pending=(QueuedPrompt(ID, mark=MARK, outputs=("3",)),))
RUNS = Queue(running=WAITS.pending)


def new_run(workflow: dict[str, object] = WORKFLOW) -> PromptRun:
    return PromptRun(instance="one", prompt_id=ID, client_id="c", graph=Graph.read(workflow), mark=MARK)


def sent(answer: PostAnswer | None = None, workflow: dict[str, object] = WORKFLOW) -> PromptRun:
    run = new_run(workflow)
    run.posting(9.0)
    run.answered(answer or Accepted(ID, 1.0), 10.0)
    return run


def done(status: HistoryStatus = HistoryStatus.SUCCESS, **fields: object) -> History:
    return History((HistoryEntry(ID, status, NodeOutputs((FILE,)), **fields),))  # type: ignore[arg-type]  # by name


def look(began: float, *, queue: Queue | None = None, history: History | None = None) -> Look:
    return Look(began, queue or Queue(), history or History())


def the_end(events: Iterable[Event]) -> Ended:
    (ended,) = [event for event in events if isinstance(event, Ended)]
    return ended


def test_an_accepted_prompt_is_taken_under_the_answered_id() -> None:
    run = new_run()
    run.posting(9.0)
    assert run.answered(Accepted("other", 4.0), 10.0) == [Taken("other")]
    assert run.prompt_id == run.snapshot().prompt_id == "other"


def test_outputs_that_are_dropped_are_said_at_once_and_at_the_end() -> None:
    error = ComfyNodeError("4", "value_not_in_list", "Value not in list")
    run = new_run()
    run.posting(9.0)
    assert run.answered(Accepted(ID, 4.0, (error,)), 10.0) == [Taken(ID, (error,))]
    ended = the_end(run.looked(look(11.0, history=done()), 11.0))
    assert (ended.outcome, ended.node_errors) == (Outcome.SUCCESS, (error,))


def test_a_refusal_ends_it_with_what_is_wrong() -> None:
    run = new_run()
    run.posting(9.0)
    error = ComfyNodeError("2", "value_bigger_than_max", "Value 9 bigger than max of 8", field="cfg")
    refused = Refused("prompt_outputs_failed_validation", "Prompt outputs failed validation", "", (error,))
    ended = the_end(run.answered(refused, 10.0))
    assert (ended.outcome, ended.reason) == (Outcome.REFUSED, EndReason.VALIDATION)
    assert ended.node_errors == (error,)
    assert ended.message == "Prompt outputs failed validation"
    assert ended.fraction == 0.0


def test_a_denial_is_not_the_workflows_fault() -> None:
    run = new_run()
    run.posting(9.0)
    ended = the_end(run.answered(Denied(403, "forbidden"), 10.0))
    assert (ended.outcome, ended.reason) == (Outcome.LOST, EndReason.DENIED)


def test_an_uncertain_answer_asks_for_a_look_and_a_look_finds_it() -> None:
    run = new_run()
    run.posting(9.0)
    assert run.answered(Uncertain(500), 10.0) == [LookNow(LookReason.UNCERTAIN)]
    assert run.looked(look(10.0, queue=WAITS), 10.1) == [Taken(ID)]


def test_an_uncertain_prompt_that_is_in_no_look_was_never_queued_but_not_at_once() -> None:
    run = sent(Uncertain())
    assert run.looked(look(10.1), 10.2) == []
    assert run.looked(look(10.3), 10.4) == []
    at = 10.2 + UNCERTAIN_PAUSE_S
    ended = the_end(run.looked(look(at), at))
    assert (ended.outcome, ended.reason) == (Outcome.LOST, EndReason.NEVER_QUEUED)


def test_a_prompt_that_the_server_named_otherwise_is_found_by_our_mark() -> None:
    run = sent(Uncertain())
    queue = Queue(running=(QueuedPrompt("theirs", mark=MARK),))
    assert run.looked(look(11.0, queue=queue), 11.0) == [Taken("theirs"), Started()]
    entry = HistoryEntry("theirs", HistoryStatus.SUCCESS)
    assert the_end(run.looked(look(12.0, history=History((entry,))), 12.0)).outcome is Outcome.SUCCESS


def test_frames_that_come_before_the_answer_are_kept_until_the_id_is_known() -> None:
    run = new_run()
    run.posting(9.0)
    for frame in (ExecutionStart("theirs"), Executing("theirs", "1"), Executing("strange", "3")):
        assert run.heard(frame, 9.5) == []
    events = run.answered(Accepted("theirs", 0.0), 10.0)
    assert events[:2] == [Taken("theirs"), Started()]
    assert run.snapshot().current == ("1",)


def test_of_early_pictures_only_those_that_may_be_outputs_are_kept() -> None:
    for workflow, expected in ((WORKFLOW, []), (SENDING, [ImageSent("2", 0, b"a", "image/png")])):
        run = new_run(workflow)
        run.posting(9.0)
        run.heard(Picture(b"a", "image/png", "theirs", "2"), 9.5)
        events = run.answered(Accepted("theirs", 0.0), 10.0)
        assert [event for event in events if isinstance(event, ImageSent | PreviewShown)] == expected


def test_a_frame_with_our_id_shows_that_the_prompt_was_taken() -> None:
    run = sent(Uncertain())
    assert run.heard(ExecutionStart(ID), 10.5)[:2] == [Taken(ID), Started()]
    run.looked(look(11.0), 11.0)
    ended = the_end(run.looked(look(11.5), 11.5))
    assert ended.reason is EndReason.VANISHED


def test_one_look_without_it_asks_for_another_and_two_prove_the_loss() -> None:
    run = sent()
    assert run.looked(look(11.0), 11.0) == [LookNow(LookReason.MISSING)]
    assert not run.ended
    ended = the_end(run.looked(look(11.1), 11.2))
    assert (ended.outcome, ended.reason) == (Outcome.LOST, EndReason.VANISHED)


def test_looks_without_it_count_only_one_after_the_other() -> None:
    run = sent()
    run.looked(look(11.0), 11.0)
    run.looked(look(12.0, queue=WAITS), 12.0)
    assert run.looked(look(13.0), 13.0) == [LookNow(LookReason.MISSING)]


def test_a_second_look_that_began_before_the_first_was_done_proves_nothing() -> None:
    run = sent()
    run.looked(look(11.0), 12.0)
    assert run.looked(look(11.5), 12.1) == []


def test_a_look_that_began_before_the_answer_proves_nothing() -> None:
    run = sent()
    for _ in range(3):
        assert run.looked(look(9.9), 10.5) == []


def test_no_look_proves_anything_while_the_post_is_on_its_way() -> None:
    run = new_run()
    assert run.looked(look(8.0), 8.0) == []
    run.posting(9.0)
    for at in (9.1, 9.2, 9.3):
        assert run.looked(look(at), at) == []


@pytest.mark.parametrize(
    "seen",
    [
        Look(11.0, None, History()),
        Look(11.0, Queue(), None),
        Look(11.0, None, None),
        Look(11.0, Queue(pending=(QueuedPrompt(""),)), History()),
        Look(11.0, Queue(), History(unreadable=frozenset({ID}))),
    ],
)
def test_a_look_that_cannot_be_read_proves_nothing(seen: Look) -> None:
    run = sent()
    for _ in range(3):
        assert run.looked(seen, 11.0) == []


def test_the_history_counts_even_if_the_queue_gave_no_answer_or_still_lists_it() -> None:
    assert the_end(sent().looked(Look(11.0, None, done()), 11.0)).outcome is Outcome.SUCCESS
    assert the_end(sent().looked(Look(11.0, RUNS, done()), 11.0)).outcome is Outcome.SUCCESS


def test_a_running_prompt_of_an_earlier_attempt_is_taken_over_without_a_post() -> None:
    run = new_run()
    assert run.looked(look(1.0, queue=RUNS), 1.0) == [Taken(ID), Started()]
    assert run.running
    run.looked(look(2.0), 2.0)
    assert the_end(run.looked(look(3.0), 3.0)).reason is EndReason.VANISHED


def test_a_prompt_that_ended_unseen_is_taken_over_from_the_history() -> None:
    events = new_run().looked(look(1.0, history=done()), 1.0)
    assert events[0] == Taken(ID)
    assert the_end(events).outcome is Outcome.SUCCESS


def test_a_prompt_that_we_took_out_of_the_queue_is_interrupted_not_lost() -> None:
    run = sent()
    assert run.cancelling(10.5) == [LookNow(LookReason.CANCELLED)]
    run.looked(look(11.0), 11.0)
    ended = the_end(run.looked(look(12.0), 12.0))
    assert (ended.outcome, ended.reason) == (Outcome.INTERRUPTED, EndReason.REMOVED)


def test_a_cancel_that_came_too_late_does_not_undo_the_success() -> None:
    run = sent()
    run.cancelling(10.5)
    assert the_end(run.looked(look(11.0, history=done()), 11.0)).outcome is Outcome.SUCCESS


def test_an_interrupted_prompt_keeps_its_outputs_and_stays_unfinished() -> None:
    run = sent()
    run.heard(Executing(ID, "2"), 10.5)
    run.heard(Progress(ID, "2", 10, 20), 11.0)
    assert LookNow(LookReason.INTERRUPTED) in run.heard(ExecutionInterrupted(ID, "2"), 11.5)
    ended = the_end(run.looked(look(12.0, history=done(HistoryStatus.INTERRUPTED)), 12.0))
    assert ended.outcome is Outcome.INTERRUPTED
    assert ended.outputs.files == (FILE,)
    assert 0 < ended.fraction < 1
    assert ended.run.current == ()


@pytest.mark.parametrize(
    ("frame", "outcome"),
    [
        (ExecutionError(ID, "2", "KSampler", "ValueError", "boom"), Outcome.FAILED),
        (ExecutionInterrupted(ID, "2"), Outcome.INTERRUPTED),
        (ExecutionStart(ID), Outcome.SUCCESS),
    ],
)
def test_a_history_of_before_2024_is_read_with_what_the_socket_said(frame: Frame, outcome: Outcome) -> None:
    run = sent()
    run.heard(frame, 11.0)
    ended = the_end(run.looked(look(12.0, history=done(HistoryStatus.UNSAID)), 12.0))
    assert ended.outcome is outcome
    assert [error.title for error in ended.node_errors] == (["Draw"] if outcome is Outcome.FAILED else [])


def test_what_the_socket_said_of_a_failure_counts_for_nothing_against_the_history() -> None:
    run = sent()
    run.heard(ExecutionError(ID, "2", "KSampler", "ValueError", "boom"), 11.0)
    ended = the_end(run.looked(look(12.0, history=done()), 12.0))
    assert (ended.outcome, ended.node_errors) == (Outcome.SUCCESS, ())
    assert {node.state for node in ended.run.nodes} == {ComfyNodeState.FINISHED}


def test_the_message_of_a_failure_is_one_line_and_its_error_says_all() -> None:
    error = ComfyNodeError("2", "OSError", "first line\nsecond line", class_type="KSampler")
    ended = the_end(sent().looked(look(12.0, history=done(HistoryStatus.ERROR, error=error)), 12.0))
    assert ended.message == "Draw: first line"
    assert ended.node_errors[0].message == "first line\nsecond line"


def test_an_error_without_details_is_still_a_failure() -> None:
    ended = the_end(sent().looked(look(12.0, history=done(HistoryStatus.ERROR)), 12.0))
    assert ended.outcome is Outcome.FAILED
    assert ended.message


def test_frames_of_others_and_without_a_prompt_change_nothing() -> None:
    run = sent()
    for frame in (
        ExecutionStart("strange"),
        Executing("", "1"),
        Picture(b"x", "image/jpeg"),
        FeatureFlags({}),
    ):
        assert run.heard(frame, 11.0) == []
    assert run.heard_at is None
    assert not run.running


def test_a_shorter_queue_asks_for_a_look_and_a_longer_one_does_not() -> None:
    run = sent()
    run.heard(Status(1), 10.0)
    assert run.heard(Status(2), 10.1) == []
    assert run.heard(Status(2), 10.1) == []
    assert run.heard(Status(1), 10.2) == [LookNow(LookReason.QUEUE_SHRANK)]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (Executing(ID, None), LookReason.ENDED),
        (ExecutionSuccess(ID), LookReason.SUCCEEDED),
        (ExecutionError(ID, "2"), LookReason.FAILED),
        (ExecutionInterrupted(ID, "2"), LookReason.INTERRUPTED),
    ],
)
def test_every_word_of_an_end_asks_for_a_look(frame: Frame, reason: LookReason) -> None:
    assert LookNow(reason) in sent().heard(frame, 11.0)


def test_progress_names_the_node_with_its_title_and_steps() -> None:
    run = sent()
    run.heard(Executing(ID, "2"), 11.0)
    (event,) = run.heard(Progress(ID, "2", 5, 20), 12.0)
    assert isinstance(event, Progressed)
    assert (event.node, event.title, event.step, event.steps) == ("2", "Draw", 5, 20)
    (node,) = event.run.nodes
    assert (node.title, node.class_type, node.progress, node.seconds) == ("Draw", "KSampler", 0.25, 1.0)
    assert (event.run.instance, event.run.prompt_id, event.run.client_id) == ("one", ID, "c")


def test_the_same_frame_twice_is_told_once() -> None:
    run = sent()
    run.heard(Executing(ID, "2"), 11.0)
    assert len(run.heard(Progress(ID, "2", 5, 20), 12.0)) == 1
    assert run.heard(Progress(ID, "2", 5, 20), 12.1) == []


def test_gone_files_ask_for_a_run_that_makes_them_anew() -> None:
    run = sent()
    run.looked(look(11.0, history=done(cached=("1", "2", "3"))), 11.0)
    assert run.files_gone([FILE]) == [RunAgain(("3",), (FILE,))]
    again = with_changed_inputs(WORKFLOW, ["3"], "2")
    assert again["1"] is WORKFLOW["1"]
    assert again["3"] == {
        "class_type": "SaveImage",
        "inputs": {"images": ["2", 0], TOKEN_INPUT: "2"},
    }


def sending(*frames: Frame) -> tuple[PromptRun, list[Event]]:
    run = sent(workflow=SENDING)
    return run, [event for frame in frames for event in run.heard(frame, 11.0)]


def picture(data: bytes, *, node: str = "2") -> Picture:
    return Picture(data, "image/png", ID, node, node)


def state(value: float, maximum: float = 2.0) -> ProgressState:
    return ProgressState(ID, (NodeProgress("2", "running", value, maximum),))


def test_a_picture_that_comes_twice_is_one_output_and_equal_pictures_are_two() -> None:
    _, events = sending(state(0), picture(b"a"), picture(b"a"), state(1), picture(b"a"))
    assert [event for event in events if isinstance(event, ImageSent)] == [
        ImageSent("2", 0, b"a", "image/png"),
        ImageSent("2", 1, b"a", "image/png"),
    ]


def test_pictures_whose_progress_was_lost_are_kept_apart() -> None:
    _, events = sending(picture(b"a"), picture(b"b"))
    assert [event.index for event in events if isinstance(event, ImageSent)] == [0, 1]


def test_a_picture_of_another_node_is_a_preview() -> None:
    _, events = sending(picture(b"a", node="1"))
    assert events[-1] == PreviewShown(b"a", "image/png", "1")


def test_a_picture_without_a_node_belongs_to_the_only_one_that_runs() -> None:
    run, _ = sending(Executing(ID, "2"), Progress(ID, "2", 0, 1))
    assert run.heard(Picture(b"a", "image/png", ID), 11.0) == [ImageSent("2", 0, b"a", "image/png")]
    at_once = ProgressState(ID, tuple(NodeProgress(node, "running", 0, 4) for node in ("1", "2")))
    run, _ = sending(at_once)
    assert run.heard(Picture(b"a", "image/png", ID), 11.0) == [PreviewShown(b"a", "image/png", "")]


def test_missing_pictures_are_waited_for_a_moment_only() -> None:
    run, _ = sending(state(0), picture(b"a"))
    history = History((HistoryEntry(ID, HistoryStatus.SUCCESS),))
    assert run.looked(look(12.0, history=history), 12.0) == []
    assert run.looked(look(13.0, history=history), 13.0) == []
    at = 12.0 + LATE_PICTURES_S
    assert the_end(run.looked(look(at, history=history), at)).missing == ("2",)


def test_pictures_are_waited_for_although_nothing_was_heard_of_the_prompt_yet() -> None:
    run, _ = sending()
    history = History((HistoryEntry(ID, HistoryStatus.SUCCESS),))
    assert run.looked(look(12.0, history=history), 12.0) == []
    events = [event for frame in (state(0, 1), picture(b"a")) for event in run.heard(frame, 12.1)]
    assert the_end(events).missing == ()


def test_missing_pictures_are_not_waited_for_once_the_socket_has_said_the_end() -> None:
    run, _ = sending(state(0), picture(b"a"), Executing(ID, None))
    history = History((HistoryEntry(ID, HistoryStatus.SUCCESS),))
    assert the_end(run.looked(look(12.0, history=history), 12.0)).missing == ("2",)


def test_a_history_deleted_while_pictures_are_waited_for_has_ended_it_all_the_same() -> None:
    run, _ = sending(state(0), picture(b"a"))
    run.looked(look(12.0, history=History((HistoryEntry(ID, HistoryStatus.SUCCESS),))), 12.0)
    assert the_end(run.looked(look(13.0), 13.0)).outcome is Outcome.SUCCESS


def test_a_cached_sending_node_owes_no_pictures() -> None:
    run, _ = sending(ExecutionCached(ID, ("1", "2")))
    history = History((HistoryEntry(ID, HistoryStatus.SUCCESS, cached=("1", "2")),))
    assert the_end(run.looked(look(12.0, history=history), 12.0)).missing == ()
