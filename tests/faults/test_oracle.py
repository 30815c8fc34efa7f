"""The oracle can fail: each promise, broken in a history or a log made by hand, is reported; a good run is not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from reverie_jobs.transitions import Claim, claim, complete, request_cancel, requeue
from reverie_launcher.chaos.evidence import (
    RETENTION_S,
    Acknowledged,
    CancelAcknowledged,
    Connection,
    Evidence,
    Joined,
    LogEntry,
    OutputRead,
    Polled,
    Resumed,
    Retold,
    Revision,
    Transition,
    Unexpected,
    WorkerSaid,
)
from reverie_launcher.chaos.observer import note
from reverie_launcher.chaos.oracle import judge
from reverie_launcher.chaos.violations import Promise
from reverie_protocol.jobs import GenerateParams, Job, JobMeta, JobState, JobType, Output

HASH = "ab" * 32
OUTPUT = Output(url=f"/storage/{HASH}.png", key=f"{HASH}.png")
META = JobMeta(seed=7, backend="diffusers")
READ = {OUTPUT.key: OutputRead(HASH, "a circle, job a\nSteps: 4, Seed: 7, Size: 64x64")}
FIRST, SECOND = Claim("a", "w0.1", 1), Claim("a", "w1.1", 2)

QUEUED = Job(
    id="a",
    owner="local",
    type=JobType.GENERATE,
    state=JobState.QUEUED,
    params=GenerateParams(prompt="a circle, job a"),
    created_at=1.0,
    enqueued_at=1.0,
    updated_at=1.0,
)
RUNNING = claim(QUEUED, worker="w0.1", now=2.0)
CANCELLING = replace(RUNNING, cancel=True)
REQUEUED = requeue(RUNNING, FIRST, crashed=True, now=3.0)
RUNNING_AGAIN = claim(REQUEUED, worker="w1.1", now=4.0)
COMPLETED = complete(RUNNING, FIRST, outputs=[OUTPUT], meta=META, now=5.0)
COMPLETED_LATER = complete(RUNNING_AGAIN, SECOND, outputs=[OUTPUT], meta=META, now=6.0)
CANCELLED = request_cancel(QUEUED, now=3.0) or QUEUED


def revisions(*jobs: Job) -> list[Revision]:
    """One job's history, numbered 1, 2, …"""
    return [Revision(seq, float(seq), replace(job, job_seq=seq)) for seq, job in enumerate(jobs, start=1)]


def evidence(*jobs: Job, acknowledged: bool = True, **more: object) -> Evidence:
    """What a run with one job saw."""
    history = {"a": revisions(*jobs)} if jobs else {}
    acks = [Acknowledged("key", "a", 1, False, 0.0)] if acknowledged else []
    return Evidence(history=history, acknowledged=acks, outputs=READ, **more)  # type: ignore[arg-type]  # by name


def broken(seen: Evidence) -> set[Promise]:
    return {violation.promise for violation in judge(seen)}


GOOD = (
    (QUEUED, RUNNING, COMPLETED),
    (QUEUED, RUNNING, REQUEUED, RUNNING_AGAIN, COMPLETED_LATER),
    (QUEUED, CANCELLED),
    (QUEUED, RUNNING, CANCELLING, replace(CANCELLED, attempt=1, worker="w0.1")),
)


@pytest.mark.parametrize("jobs", GOOD)
def test_a_proper_life_breaks_nothing(jobs: tuple[Job, ...]) -> None:
    assert judge(evidence(*jobs)) == []


BAD = {
    "acknowledged and gone": ((), Promise.NO_JOB_LOST),
    "acknowledged and never done": ((QUEUED, RUNNING), Promise.NO_JOB_LOST),
    "completed twice": ((QUEUED, RUNNING, COMPLETED, COMPLETED), Promise.ONE_END),
    "cancelled after completion": (
        (QUEUED, RUNNING, COMPLETED, replace(CANCELLED, attempt=1)),
        Promise.ONE_END,
    ),
    "queued again after its end": ((QUEUED, CANCELLED, QUEUED, RUNNING, COMPLETED), Promise.ONE_END),
    "begins as running": ((RUNNING, COMPLETED), Promise.LEGAL_MOVES),
    "completed without having run": (
        (QUEUED, replace(COMPLETED, attempt=0)),
        Promise.LEGAL_MOVES,
    ),
    "the attempt jumps": (
        (QUEUED, replace(RUNNING, attempt=2), replace(COMPLETED, attempt=2)),
        Promise.LEGAL_MOVES,
    ),
    "the attempt falls": (
        (QUEUED, RUNNING, REQUEUED, replace(RUNNING_AGAIN, attempt=1), replace(COMPLETED_LATER, attempt=1)),
        Promise.LEGAL_MOVES,
    ),
    "another worker ends the attempt": (
        (QUEUED, RUNNING, replace(COMPLETED, worker="w1.1")),
        Promise.LEGAL_MOVES,
    ),
    "a second worker takes a running job": (
        (QUEUED, RUNNING, replace(RUNNING, worker="w1.1"), replace(COMPLETED, worker="w1.1")),
        Promise.LEGAL_MOVES,
    ),
    "nobody runs it": (
        (QUEUED, replace(RUNNING, worker=None), replace(COMPLETED, worker=None)),
        Promise.LEGAL_MOVES,
    ),
    "another prompt": (
        (QUEUED, replace(RUNNING, params=GenerateParams(prompt="else")), COMPLETED),
        Promise.LEGAL_MOVES,
    ),
    "completed with nothing": ((QUEUED, RUNNING, replace(COMPLETED, outputs=())), Promise.OUTPUT_THERE),
}


@pytest.mark.parametrize(("jobs", "promise"), BAD.values(), ids=BAD.keys())
def test_a_broken_history_is_reported(jobs: tuple[Job, ...], promise: Promise) -> None:
    assert promise in broken(evidence(*jobs))


def test_a_revision_that_is_missing_from_the_history_is_reported() -> None:
    seen = evidence(QUEUED, RUNNING, COMPLETED)
    del seen.history["a"][1]
    assert Promise.LEGAL_MOVES in broken(seen)


def test_a_record_that_was_written_more_often_than_its_history_tells_is_reported() -> None:
    seen = evidence(QUEUED, RUNNING, COMPLETED)
    last = seen.history["a"][2]
    seen.history["a"][2] = replace(last, job=replace(last.job, job_seq=4))
    assert broken(seen) == {Promise.LEGAL_MOVES}


def test_the_report_shows_the_history_of_the_job() -> None:
    violation = judge(evidence(QUEUED, RUNNING))[0]
    assert violation.job_id == "a"
    assert "2 +1.000s running attempt 1 worker w0.1" in violation.history[1]


@pytest.mark.parametrize(
    "read",
    [
        None,
        OutputRead("cd" * 32, READ[OUTPUT.key].text),
        OutputRead(HASH, "a square\nSeed: 7, "),
        OutputRead(HASH, "a circle, job a\nSeed: 8, "),
    ],
    ids=["unreadable", "another hash", "another job's prompt", "another seed"],
)
def test_an_output_that_is_not_the_jobs_own_is_reported(read: OutputRead | None) -> None:
    seen = evidence(QUEUED, RUNNING, COMPLETED)
    seen.outputs = {OUTPUT.key: read}
    assert broken(seen) == {Promise.OUTPUT_THERE}


def test_a_job_that_completes_after_its_cancel_was_acknowledged_is_reported() -> None:
    acknowledged = CancelAcknowledged("a", JobState.RUNNING, 0.0)
    assert broken(evidence(QUEUED, RUNNING, COMPLETED, cancelled=[acknowledged])) == {Promise.CANCEL_HOLDS}


def test_a_cancel_that_came_too_late_and_said_so_breaks_nothing() -> None:
    acknowledged = CancelAcknowledged("a", JobState.COMPLETED, 0.0)
    assert judge(evidence(QUEUED, RUNNING, COMPLETED, cancelled=[acknowledged])) == []


def test_a_cancelled_job_without_a_record_is_lost() -> None:
    seen = evidence(cancelled=[CancelAcknowledged("a", JobState.CANCELLED, 0.0)])
    assert Promise.NO_JOB_LOST in broken(seen)


def test_a_key_that_made_two_jobs_is_reported() -> None:
    seen = evidence(QUEUED, CANCELLED)
    seen.history["b"] = [replace(each, seq=each.seq + 2) for each in revisions(QUEUED, CANCELLED)]
    seen.acknowledged.append(Acknowledged("key", "b", 3, False, 0.0))
    assert broken(seen) == {Promise.ONE_JOB_PER_KEY}


def test_an_acknowledgement_of_what_was_never_committed_is_reported() -> None:
    seen = evidence(QUEUED, CANCELLED, acknowledged=False)
    seen.acknowledged.append(Acknowledged("key", "a", 9, False, 0.0))
    assert broken(seen) == {Promise.LOG_TRUE}


def test_a_worker_that_completed_a_superseded_attempt_is_reported() -> None:
    said = [WorkerSaid("w0", "a", 1, "completed")]
    jobs = (QUEUED, RUNNING, REQUEUED, RUNNING_AGAIN, COMPLETED_LATER)
    assert broken(evidence(*jobs, said=said)) == {Promise.LEGAL_MOVES}


def test_a_worker_that_says_it_was_superseded_breaks_nothing() -> None:
    said = [WorkerSaid("w0", "a", 1, "superseded"), WorkerSaid("w1", "a", 2, "completed")]
    jobs = (QUEUED, RUNNING, REQUEUED, RUNNING_AGAIN, COMPLETED_LATER)
    assert judge(evidence(*jobs, said=said)) == []


def test_a_service_that_does_not_come_back_is_reported() -> None:
    assert broken(evidence(QUEUED, CANCELLED, not_back=["gateway-0"])) == {Promise.ALL_BACK}


def test_a_gateway_that_noticed_a_hole_is_reported() -> None:
    assert broken(evidence(QUEUED, CANCELLED, holes=["gateway-0: missed"])) == {Promise.NO_HOLE}


def test_a_job_that_is_asked_for_after_its_retention_may_be_gone_and_not_a_moment_before() -> None:
    ended = revisions(QUEUED, CANCELLED)[-1].at
    for at, promises in ((ended + RETENTION_S, set()), (ended + RETENTION_S - 1, {Promise.PROPER_ANSWERS})):
        assert broken(evidence(QUEUED, CANCELLED, polled=[Polled("a", None, None, at)])) == promises
    unfinished = evidence(QUEUED, RUNNING, polled=[Polled("a", None, None, 1e9)])
    assert Promise.PROPER_ANSWERS in broken(unfinished)


def test_answers_that_no_client_should_get_are_reported() -> None:
    gone = evidence(QUEUED, CANCELLED, polled=[Polled("a", None, None)])
    untrue = evidence(QUEUED, CANCELLED, polled=[Polled("a", JobState.COMPLETED, 2)])
    fault = evidence(QUEUED, CANCELLED, unexpected=[Unexpected("a", "500")])
    assert (broken(gone), broken(untrue), broken(fault)) == (
        {Promise.PROPER_ANSWERS},
        {Promise.LOG_TRUE},
        {Promise.PROPER_ANSWERS},
    )


def test_what_is_republished_while_a_subscriber_joins_is_of_the_time_before() -> None:
    connection = Connection("observer", "1", [Joined(3)])
    for number in (2, 3, 4, 3):
        note(connection, *told(number))
    assert connection.entries == [Joined(3), *told(4, 3)]


# --- what clients heard; the history is 1 queued, 2 running, 3 queued, 4 running, 5 completed

STATES = (JobState.QUEUED, JobState.RUNNING, JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED)
LIFE = (QUEUED, RUNNING, REQUEUED, RUNNING_AGAIN, COMPLETED_LATER)


def told(*numbers: int) -> list[LogEntry]:
    return [Transition("a", STATES[number - 1], number, number) for number in numbers]


def heard(*connections: Iterable[LogEntry]) -> set[Promise]:
    """What is broken if one client heard this on its connections."""
    log = [Connection("client", f"{number}", list(entries)) for number, entries in enumerate(connections)]
    return broken(evidence(*LIFE, client_logs=[log]))


GOOD_LOGS: dict[str, list[list[LogEntry]]] = {
    "everything": [[Joined(0), *told(1, 2, 3, 4, 5)]],
    "everything since it came": [[Joined(2), *told(3, 4, 5)]],
    "the present before it joined": [[*told(2), Joined(2), *told(3, 4, 5)]],
    "cut off": [[Joined(0), *told(1, 2)]],
    "came back afresh": [[Joined(0), *told(1, 2)], [*told(4), Joined(4), *told(5)]],
    "could not be resumed": [[Joined(0), *told(1)], [Resumed(False, 1, 4), *told(4, 5)]],
    "resumed": [[Joined(0), *told(1, 2)], [Resumed(True, 2, 4), *told(3, 4, 5)]],
    "the present, then resumed": [[Joined(0), *told(1)], [*told(4), Resumed(True, 1, 4), *told(2, 3, 4, 5)]],
    "told again after a repeated submit": [[Joined(0), *told(1, 2), Retold("a"), *told(2, 3, 4, 5)]],
    "all told again": [[Joined(0), *told(1, 2), Retold("a"), *told(1, 2, 3, 4, 5)]],
    "only the present after a repeated submit": [[Joined(0), *told(1), Retold("a"), *told(4, 5)]],
}


@pytest.mark.parametrize("log", GOOD_LOGS.values(), ids=GOOD_LOGS.keys())
def test_a_proper_log_breaks_nothing(log: list[list[LogEntry]]) -> None:
    assert heard(*log) == set()


BAD_LOGS: dict[str, tuple[list[list[LogEntry]], Promise]] = {
    "twice": ([[Joined(0), *told(1, 2, 2, 3, 4, 5)]], Promise.LOG_ONCE),
    "what it had before": ([[Joined(2), *told(2, 3)]], Promise.LOG_ONCE),
    "out of order": ([[Joined(0), *told(1, 3, 2)]], Promise.LOG_ORDER),
    "a gap": ([[Joined(0), *told(1, 3)]], Promise.LOG_WHOLE),
    "a gap at the beginning": ([[Joined(0), *told(2)]], Promise.LOG_WHOLE),
    "what never was": ([[Joined(0), Transition("a", JobState.CANCELLED, 1, 1)]], Promise.LOG_TRUE),
    "a gap across a resume": ([[Joined(0), *told(1)], [Resumed(True, 1, 4), *told(3, 4)]], Promise.LOG_WHOLE),
    "twice across a resume": (
        [[Joined(0), *told(1, 2)], [Resumed(True, 2, 4), *told(2, 3)]],
        Promise.LOG_ONCE,
    ),
    "twice after being told again": ([[Joined(0), *told(1), Retold("a"), *told(1, 2, 2)]], Promise.LOG_ONCE),
    "a gap after being told again": ([[Joined(0), *told(1), Retold("a"), *told(2, 4)]], Promise.LOG_WHOLE),
}


@pytest.mark.parametrize(("log", "promise"), BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_a_broken_log_is_reported(log: list[list[LogEntry]], promise: Promise) -> None:
    assert heard(*log) == {promise}


def test_a_subscriber_of_the_bus_that_missed_a_revision_is_reported() -> None:
    log = [Connection("observer", "1", [Joined(0), *told(1, 3)])]
    assert broken(evidence(*LIFE, bus_log=log)) == {Promise.BUS_WHOLE}
