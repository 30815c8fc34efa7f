"""What is wrong with an instance is noticed by what it should have said and did not: each kind, and no other."""

from __future__ import annotations

import json

import pytest

from reverie_comfy_bridge.instance.health import Finding, Health, Limits, Reason, Remedy
from reverie_comfy_bridge.instance.reasons import close_reason
from reverie_comfy_bridge.wire.frames import (
    Executing,
    ExecutionStart,
    FeatureFlags,
    Progress,
    Status,
    read_frame,
)
from reverie_comfy_bridge.wire.queue import Queue, QueuedPrompt, read_queue
from reverie_testing.fake_comfy import recorded

LIMITS = Limits(status_s=5, pong_s=10, silent_s=60, interrupt_s=20, idle_looks=4, idle_s=8, stalled_s=30)
EMPTY = Queue()


def queue(*, running: tuple[str, ...] = (), pending: tuple[str, ...] = ()) -> Queue:
    return Queue(tuple(map(QueuedPrompt, running)), tuple(map(QueuedPrompt, pending)))


def connected(at: float = 0.0) -> Health:
    """An instance whose socket was opened and greeted."""
    health = Health(LIMITS)
    health.opened(at)
    health.heard(Status(0, "c"), at + 0.01)
    health.heard(FeatureFlags({}), at + 0.01)
    return health


def codes(found: list[Finding]) -> list[tuple[Reason, Remedy]]:
    return [(finding.reason, finding.remedy) for finding in found]


DEAF = [(Reason.DEAF_SOCKET, Remedy.REOPEN)]
STALLED = [(Reason.STALLED, Remedy.POLL)]
DEAD = [(Reason.DEAD_WORKER, Remedy.UNHEALTHY)]
RESTARTED = [(Reason.RESTARTED, Remedy.LOOK)]


def test_an_instance_that_does_as_it_should_is_well() -> None:
    health = connected()
    for second in range(300):
        now = float(second)
        if second % 10 == 0:
            health.pinged(now)
            health.ponged(now + 0.001)
            health.posted(f"p{second}", second, now)
            health.heard(Status(1), now + 0.01)
            health.heard(ExecutionStart(f"p{second}"), now + 0.02)
        health.heard(Progress(f"p{second // 10 * 10}", "1", 1, 2), now + 0.5)
        health.looked(queue(running=(f"p{second // 10 * 10}",)), [f"p{second // 10 * 10}"], now + 0.6)
        if second % 10 == 9:
            health.ended(f"p{second // 10 * 10}", heard=True, now=now + 0.9)
        assert health.check(now + 0.95) == []
        assert health.unhealthy is None


# --- the socket ---


def test_a_socket_that_is_not_greeted_is_deaf() -> None:
    health = Health(LIMITS)
    health.opened(0.0)
    assert health.check(4.9) == []
    assert codes(health.check(5.1)) == DEAF


def test_a_post_that_no_status_follows_shows_a_deaf_socket() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.looked(queue(running=("p",)), ["p"], 12.0)
    assert health.check(15.0) == []
    found = health.check(15.1)
    assert codes(found) == DEAF
    assert found[0].detail
    assert health.check(15.2) == []
    assert health.unhealthy is None


def test_progress_alone_does_not_make_up_for_the_status_of_a_post() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.heard(Progress("q", "1", 1, 2), 11.0)
    health.looked(EMPTY, [], 12.0)
    assert codes(health.check(16.0)) == DEAF


def test_a_status_after_the_post_shows_that_the_socket_hears() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.heard(Status(1), 10.01)
    health.looked(EMPTY, [], 12.0)
    assert health.check(100.0) == []


def test_a_status_that_outran_the_answer_to_the_post_counts() -> None:
    health = connected()
    health.heard(Status(1), 10.01)
    health.heard(ExecutionStart("p"), 10.02)
    health.posted("p", 1, 10.0)
    health.looked(queue(running=("p",)), ["p"], 12.0)
    assert health.check(30.0) == []


def test_a_post_that_was_sent_before_the_socket_was_opened_owes_it_nothing() -> None:
    health = connected(at=11.0)
    health.posted("p", 1, 10.0)
    health.looked(queue(running=("p",)), [], 12.0)
    health.ended("p", heard=False, now=15.0)
    assert health.check(30.0) == []


def test_a_queue_that_changed_without_a_status_shows_a_deaf_socket() -> None:
    health = connected()
    health.looked(queue(pending=("strange",)), [], 10.0)
    health.looked(queue(running=("strange",)), [], 20.0)
    health.looked(queue(running=("strange",)), [], 24.0)
    assert health.check(25.0) == []
    assert codes(health.check(25.1)) == DEAF


def test_a_queue_that_changed_with_a_status_between_the_looks_does_not() -> None:
    health = connected()
    health.looked(queue(pending=("strange",)), [], 10.0)
    health.heard(Status(1), 15.0)
    for at in (20.0, 30.0):
        health.looked(queue(running=("strange",)), [], at)
    assert health.check(40.0) == []


def test_a_queue_that_changed_while_there_was_no_socket_does_not() -> None:
    health = connected()
    health.looked(queue(pending=("strange",)), [], 10.0)
    health.closed(11.0)
    health.opened(12.0)
    health.heard(Status(1, "c"), 12.1)
    for at in (12.2, 20.0):
        health.looked(EMPTY, [], at)
    assert health.check(40.0) == []


def test_a_server_that_answers_nothing_at_all_is_not_called_deaf() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    assert health.check(30.0) == []
    health.looked(EMPTY, [], 30.0)
    assert codes(health.check(30.1)) == DEAF


def test_a_prompt_that_ran_and_ended_unheard_shows_a_deaf_socket() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.heard(Status(1), 10.1)
    health.ended("p", heard=False, now=20.0)
    assert health.check(24.9) == []
    assert codes(health.check(25.1)) == DEAF


def test_frames_that_come_soon_after_the_history_are_not_missed() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.heard(Status(1), 10.1)
    health.ended("p", heard=False, now=20.0)
    health.heard(ExecutionStart("p"), 21.0)
    assert health.check(60.0) == []


def test_prompts_that_were_taken_out_of_the_queue_are_never_missed() -> None:
    health = connected()
    for number in range(200):
        health.posted(f"p{number}", number, 10.0 + number)
        health.heard(Status(1), 10.1 + number)
        health.looked(EMPTY, [], 10.2 + number)
        assert health.check(10.3 + number) == []
    assert health.check(500.0) == []


def test_an_unheard_prompt_of_another_client_id_says_nothing() -> None:
    health = connected()
    health.ended("taken-over", heard=False, now=20.0)
    assert health.check(60.0) == []


def test_a_new_socket_that_is_as_silent_shows_that_events_are_held_up() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.looked(EMPTY, [], 12.0)
    assert codes(health.check(16.0)) == DEAF
    health.closed(16.1)
    health.opened(16.2)
    health.heard(Status(1, "c2"), 16.3)
    health.posted("q", 2, 17.0)
    health.looked(EMPTY, [], 20.0)
    assert codes(health.check(23.0)) == STALLED
    assert health.check(24.0) == []
    assert health.unhealthy is None


def test_a_stalled_instance_whose_events_flow_again_is_well() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.looked(EMPTY, [], 12.0)
    health.check(16.0)
    health.closed(16.1)
    health.opened(16.2)
    health.heard(Status(1, "c2"), 16.3)
    health.heard(Status(0), 18.0)
    health.posted("q", 2, 20.0)
    health.looked(EMPTY, [], 22.0)
    assert codes(health.check(26.0)) == DEAF


def test_a_socket_that_stays_silent_for_long_is_tried_anew() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.looked(EMPTY, [], 12.0)
    health.check(16.0)
    health.closed(16.1)
    health.opened(16.2)
    health.heard(Status(1, "c2"), 16.3)
    health.posted("q", 2, 17.0)
    health.looked(EMPTY, [], 20.0)
    assert codes(health.check(23.0)) == STALLED
    assert codes(health.check(46.1)) == DEAF


def test_unanswered_pings_show_a_half_open_connection() -> None:
    health = connected()
    for at in (10.0, 15.0, 20.0):
        health.pinged(at)
    assert health.check(20.0) == []
    assert codes(health.check(20.1)) == [(Reason.HALF_OPEN, Remedy.REOPEN)]


def test_whatever_comes_after_a_ping_shows_that_the_line_is_alive() -> None:
    health = connected()
    health.pinged(10.0)
    health.heard(Progress("strange", "1", 1, 2), 12.0)
    assert health.check(60.0) == []
    health.pinged(61.0)
    health.ponged(61.1)
    assert health.check(99.0) == []


def test_without_a_socket_nothing_is_owed() -> None:
    health = connected()
    health.posted("p", 1, 10.0)
    health.pinged(10.0)
    health.closed(10.5)
    health.looked(queue(running=("p",)), ["p"], 11.0)
    assert health.check(500.0) == []


# --- the worker ---


def test_a_running_prompt_without_a_sign_for_long_is_to_be_interrupted() -> None:
    health = connected()
    for at in range(10, 75, 5):
        health.looked(queue(running=("p",)), ["p"], float(at))
    assert health.check(70.0) == []
    (finding,) = health.check(70.1)
    assert (finding.reason, finding.remedy, finding.prompt_id) == (Reason.JOB_SILENT, Remedy.INTERRUPT, "p")
    assert health.unhealthy is None


def test_a_sign_of_the_prompt_begins_the_wait_anew() -> None:
    health = connected()
    health.looked(queue(running=("p",)), ["p"], 10.0)
    health.heard(Progress("p", "1", 1, 2), 60.0)
    health.looked(queue(running=("p",)), ["p"], 69.0)
    assert health.check(119.0) == []
    assert health.check(120.5) != []


def test_signs_are_waited_for_only_since_there_is_a_socket() -> None:
    health = connected()
    health.looked(queue(running=("p",)), ["p"], 10.0)
    health.closed(11.0)
    health.looked(queue(running=("p",)), ["p"], 90.0)
    assert health.check(90.0) == []
    health.opened(91.0)
    health.heard(Status(1, "c"), 91.1)
    assert health.check(150.0) == []
    assert [finding.reason for finding in health.check(151.1)] == [Reason.JOB_SILENT]


def test_a_silent_prompt_that_was_interrupted_is_not_to_be_interrupted_again() -> None:
    health = connected()
    health.looked(queue(running=("p",)), ["p"], 10.0)
    health.interrupted("p", 65.0)
    health.looked(queue(running=("p",)), ["p"], 80.0)
    assert health.check(80.0) == []


def test_a_prompt_of_another_client_id_owes_no_signs() -> None:
    health = connected()
    health.looked(queue(running=("taken-over",)), [], 10.0)
    assert health.check(1000.0) == []


def test_a_prompt_that_runs_on_after_an_interrupt_shows_a_dead_worker() -> None:
    health = connected()
    health.looked(queue(running=("p",)), ["p"], 10.0)
    health.interrupted("p", 11.0)
    health.looked(queue(running=("p",)), ["p"], 31.0)
    assert health.check(31.0) == []
    health.looked(queue(running=("p",)), ["p"], 31.1)
    assert codes(health.check(31.1)) == DEAD
    assert health.unhealthy is not None
    assert health.unhealthy.prompt_id == "p"
    assert health.check(32.0) == []


def test_a_prompt_that_still_gives_signs_after_an_interrupt_shows_a_living_worker() -> None:
    health = connected()
    health.looked(queue(running=("p",)), ["p"], 10.0)
    health.interrupted("p", 11.0)
    for at in range(12, 60, 5):
        health.heard(Progress("p", "1", at, 60), float(at))
        health.looked(queue(running=("p",)), ["p"], at + 1.0)
        assert health.check(at + 1.0) == []


def test_an_interrupt_that_took_effect_late_shows_a_living_worker() -> None:
    health = connected()
    health.looked(queue(running=("p",)), ["p"], 10.0)
    health.interrupted("p", 11.0)
    health.looked(queue(running=("p",)), ["p"], 40.0)
    assert codes(health.check(40.0)) == DEAD
    health.ended("p", heard=True, now=41.0)
    assert health.unhealthy is None


def test_an_interrupt_does_not_count_while_the_prompt_waits() -> None:
    health = connected()
    health.interrupted("p", 1.0)
    health.looked(queue(running=("q",), pending=("p",)), ["p"], 50.0)
    health.looked(queue(running=("p",)), ["p"], 55.0)
    assert health.check(55.0) == []


def test_prompts_that_wait_while_none_runs_show_a_dead_worker() -> None:
    health = connected()
    for at in (10.0, 12.0, 15.0):
        health.looked(queue(pending=("p",)), ["p"], at)
    assert health.check(17.0) == []
    health.looked(queue(pending=("p",)), ["p"], 18.0)
    assert codes(health.check(18.0)) == DEAD


def test_a_few_quick_looks_between_two_prompts_do_not() -> None:
    health = connected()
    for at in (10.0, 10.1, 10.2, 10.3, 10.4):
        health.looked(queue(pending=("p",)), ["p"], at)
    assert health.check(10.5) == []
    health.heard(Status(1), 10.9)
    health.looked(queue(running=("p",)), ["p"], 11.0)
    health.heard(Status(1), 11.9)
    for at in (12.0, 18.0):
        health.looked(queue(pending=("q",)), ["q"], at)
    assert health.check(18.0) == []


def dead() -> Health:
    health = connected()
    for at in (10.0, 12.0, 15.0, 20.0):
        health.looked(queue(pending=("p",)), ["p"], at)
    assert health.unhealthy is not None
    return health


def test_a_dead_worker_stays_dead_when_its_queue_is_emptied() -> None:
    health = dead()
    health.looked(EMPTY, [], 21.0)
    assert health.unhealthy is not None


def test_a_dead_worker_is_alive_when_a_prompt_runs() -> None:
    health = dead()
    health.looked(queue(running=("p",)), ["p"], 21.0)
    assert health.unhealthy is None


def test_a_dead_worker_is_alive_when_a_frame_tells_of_a_prompt() -> None:
    health = dead()
    health.heard(Status(0), 21.0)
    assert health.unhealthy is not None
    health.heard(Executing("p", "1"), 21.0)
    assert health.unhealthy is None


def test_a_dead_worker_is_believed_alive_after_a_restart() -> None:
    health = dead()
    health.closed(30.0)
    health.opened(60.0)
    assert health.unhealthy is not None
    health.looked(EMPTY, [], 61.0)
    assert health.unhealthy is None


def test_a_reconnect_alone_does_not_revive_a_worker_that_is_stuck_in_a_prompt() -> None:
    health = connected()
    health.interrupted("p", 11.0)
    health.looked(queue(running=("p",)), ["p"], 12.0)
    health.looked(queue(running=("p",)), ["p"], 40.0)
    assert health.unhealthy is not None
    health.closed(50.0)
    health.opened(51.0)
    health.looked(queue(running=("p",)), [], 52.0)
    assert health.unhealthy is not None


# --- restarts ---


def test_a_number_that_falls_back_shows_a_restart() -> None:
    health = connected()
    health.posted("p", 41, 10.0)
    health.heard(Status(1), 10.1)
    health.posted("q", 42, 20.0)
    health.heard(Status(1), 20.1)
    assert health.check(20.2) == []
    health.posted("r", 0, 30.0)
    health.heard(Status(1), 30.1)
    assert codes(health.check(30.2)) == RESTARTED
    assert health.check(30.3) == []


def test_two_posts_at_once_may_be_numbered_crosswise() -> None:
    health = connected()
    health.posted("q", 42, 10.1)
    health.posted("p", 41, 10.0)
    health.heard(Status(2), 10.2)
    assert health.check(10.3) == []


def test_a_number_that_is_none_says_nothing() -> None:
    health = connected()
    health.posted("p", 5, 10.0)
    health.posted("q", None, 11.0)
    health.heard(Status(2), 11.1)
    assert health.check(11.2) == []


def test_a_vanished_prompt_shows_a_restart() -> None:
    health = connected()
    health.vanished("p", 10.0)
    assert codes(health.check(10.1)) == RESTARTED


# --- as it was recorded ---


@pytest.mark.parametrize("version", ["0.3.43", "0.33.0"])
def test_the_recorded_deaf_socket_is_found(version: str) -> None:
    """The second socket with the same client id hears nothing more once the first has closed."""
    health = Health(LIMITS)
    seen = EMPTY
    for line in recorded.lines(version, "s13_same_client_id_twice"):
        if line["kind"] == "ws_open" and line["conn"] == "new":
            health.opened(line["t"])
        message = recorded.message(line) if line.get("conn") == "new" else None
        if message is not None and (frame := read_frame(message)) is not None:
            health.heard(frame, line["t"])
        if line["kind"] == "http_res" and line["path"] == "/queue":
            seen = read_queue(json.dumps(line["json"]).encode()) or EMPTY
            health.looked(seen, [], line["t"])
        assert health.check(line["t"]) == []
    assert seen.running
    for at in (8.0, 10.0, 12.0):
        health.looked(EMPTY, [], at)
        assert health.check(at) == []
    assert codes(health.check(13.1)) == DEAF


def test_the_recorded_dead_worker_is_found_when_an_interrupt_has_no_effect() -> None:
    lines = recorded.lines("0.33.0", "s34_dead_worker_thread")
    health = Health(LIMITS)
    stuck = next(
        line["json"]["prompt_id"] for line in lines if line.get("path") == "/prompt" and "json" in line
    )
    last = None
    for line in lines:
        if line["kind"] == "ws_open":
            health.opened(line["t"])
        if (message := recorded.message(line)) is not None and (frame := read_frame(message)) is not None:
            health.heard(frame, line["t"])
        if line["kind"] == "http_req" and line["path"] == "/interrupt":
            health.interrupted(stuck, line["t"])
        if line["kind"] == "http_res" and line["path"] == "/queue":
            last = read_queue(json.dumps(line["json"]).encode())
            assert last is not None
            health.looked(last, [stuck], line["t"])
    assert last is not None
    assert last.runs(stuck)
    assert health.check(10.0) == []
    health.looked(last, [stuck], 26.0)
    assert codes(health.check(26.0)) == DEAD


@pytest.mark.parametrize(
    "scenario",
    ["s03_success_basic", "s12_ws_reconnect_mid_run", "s22_progress_throttle", "s21_uninterruptible_node"],
)
def test_nothing_is_found_in_recordings_of_healthy_servers(scenario: str) -> None:
    health = Health()
    for line in recorded.lines("0.33.0", scenario):
        now = line["t"]
        if line["kind"] == "ws_open":
            health.opened(now)
        if line["kind"] == "ws_closed":
            health.closed(now)
        if (message := recorded.message(line)) is not None and (frame := read_frame(message)) is not None:
            health.heard(frame, now)
        if line["kind"] == "http_res" and line["path"] == "/prompt" and "json" in line:
            health.posted(str(line["json"].get("prompt_id")), line["json"].get("number"), now)
        assert health.check(now) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, Reason.CONNECTION_LOST),
        (1006, Reason.CONNECTION_LOST),
        (1000, Reason.CLOSED_BY_SERVER),
        (1001, Reason.CLOSED_BY_SERVER),
        (1012, Reason.CLOSED_BY_SERVER),
    ],
)
def test_a_closed_socket_has_a_reason(code: int | None, reason: Reason) -> None:
    assert close_reason(code) is reason
