"""Judges what clients and a subscriber of `job.state.>` were told, against what was committed.  Pure.

A log is cut into stretches.  A stretch begins where a client knew the state (`Joined`) and goes on over reconnects
as long as `resume` recovered; in it each transition comes once, in order, and none is missing up to the last heard.
What comes before `Joined` on a connection is a snapshot of the present, not news.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from reverie_launcher.chaos.evidence import (
    Connection,
    Evidence,
    History,
    Resumed,
    Retold,
    Transition,
)
from reverie_launcher.chaos.violations import Promise, Violation


class Committed:
    """What was committed, by revision; `seqs` are the revisions in order."""

    def __init__(self, history: History) -> None:
        self.by_seq = {
            revision.seq: Transition(job_id, revision.job.state, revision.seq, revision.job.job_seq)
            for job_id, revisions in history.items()
            for revision in revisions
        }
        self.seqs = sorted(self.by_seq)


def judge_logs(evidence: Evidence) -> Iterator[Violation]:
    """Violations in every client's log and in the bus's."""
    committed = Committed(evidence.history)
    for connections in evidence.client_logs:
        yield from judge_client(connections, committed)
    for connection in evidence.bus_log:
        for violation in judge_client([connection], committed):
            yield Violation(Promise.BUS_WHOLE, violation.job_id, violation.what)


def judge_client(connections: Iterable[Connection], committed: Committed) -> Iterator[Violation]:
    """Violations in one client's connections, in their order."""
    stretch: _Stretch | None = None
    for connection in connections:
        listening = False
        name = f"{connection.who} on {connection.where}"
        for entry in connection.entries:
            if isinstance(entry, Transition):
                yield from _judge_truth(entry, committed, name)
                if listening and stretch is not None:
                    yield from stretch.hear(entry, name)
            elif isinstance(entry, Retold):
                if stretch is not None:
                    stretch.retell(entry.job_id)
            else:
                goes_on = isinstance(entry, Resumed) and entry.recovered
                if stretch is None or not goes_on:
                    yield from stretch.missing(committed) if stretch is not None else ()
                    stretch = _Stretch(entry.seq, snapshot=isinstance(entry, Resumed))
                listening = True
    yield from stretch.missing(committed) if stretch is not None else ()


def _judge_truth(told: Transition, committed: Committed, name: str) -> Iterator[Violation]:
    if committed.by_seq.get(told.seq) != told:
        what = f"{name}: {told.state} at revision {told.seq} was never committed"
        yield Violation(Promise.LOG_TRUE, told.job_id, what)


def recoveries(connections: Iterable[Connection]) -> tuple[int, int]:
    """How many resumes were recovered although something had happened meanwhile, and how many were not."""
    answers = [
        entry for connection in connections for entry in connection.entries if isinstance(entry, Resumed)
    ]
    return sum(each.recovered and each.cursor < each.seq for each in answers), sum(
        not each.recovered for each in answers
    )


class _Stretch:
    """From one known state to where the log breaks off.  With `snapshot`, the state up to `start` is told first."""

    def __init__(self, start: int, *, snapshot: bool = False) -> None:
        self._start = start
        self._snapshot = snapshot
        self._highest = start
        self._heard: set[int] = set()
        self._retold: dict[str, int] = {}
        self._covered: dict[str, int] = {}

    def retell(self, job_id: str) -> None:
        """The job's events up to now may come once more, in their order."""
        self._retold[job_id] = 0
        self._covered.pop(job_id, None)

    def hear(self, told: Transition, name: str) -> Iterator[Violation]:
        if self._is_retold(told):
            self._heard.add(told.seq)
            return
        if told.seq <= self._start:
            if not self._snapshot:
                what = f"{name}: {told.state} at revision {told.seq} came although it joined at {self._start}"
                yield Violation(Promise.LOG_ONCE, told.job_id, what)
            return
        if told.seq in self._heard:
            what = f"{name}: {told.state} at revision {told.seq} came twice"
            yield Violation(Promise.LOG_ONCE, told.job_id, what)
        elif told.seq < self._highest:
            what = f"{name}: {told.state} at revision {told.seq} came after revision {self._highest}"
            yield Violation(Promise.LOG_ORDER, told.job_id, what)
        self._heard.add(told.seq)
        self._highest = max(self._highest, told.seq)

    def missing(self, committed: Committed) -> Iterator[Violation]:
        """What the client should have heard before the last thing that it heard."""
        first, last = bisect_right(committed.seqs, self._start), bisect_right(committed.seqs, self._highest)
        for seq in committed.seqs[first:last]:
            if seq in self._heard:
                continue
            transition = committed.by_seq[seq]
            if seq <= self._covered.get(transition.job_id, 0):
                continue  # a later state of the job was told instead, in answer to a repeated submit
            what = f"{transition.state} at revision {seq} was never told, revision {self._highest} was"
            yield Violation(Promise.LOG_WHOLE, transition.job_id, what)

    def _is_retold(self, told: Transition) -> bool:
        """Whether it is part of what a repeated submit is answered with."""
        last = self._retold.get(told.job_id)
        if last is None or told.seq <= last:
            return False
        self._retold[told.job_id] = told.seq
        self._covered.setdefault(told.job_id, told.seq)
        return told.seq <= self._highest
