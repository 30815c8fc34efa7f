"""What a run found: as data, and as a table for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reverie_launcher.chaos.evidence import RETENTION_S, Evidence
from reverie_launcher.chaos.figures import nats_returns, percentile, recoveries
from reverie_launcher.chaos.injector import Done
from reverie_launcher.chaos.logs import recoveries as resumes
from reverie_launcher.chaos.member import Happened
from reverie_launcher.chaos.plan import FaultKind
from reverie_launcher.chaos.violations import Promise, Violation

SHOWN_VIOLATIONS = 10


class Setup(msgspec.Struct, frozen=True):
    """What was asked for; the same setup makes the same plan."""

    seed: int
    jobs: int
    span_s: float
    faults: int
    workers: int = 2
    light: int = 0
    gateways: int = 2
    clients: int = 4
    settle_s: float = 60.0
    only: tuple[FaultKind, ...] = ()
    prompt_chars: int = 0
    retention_s: float = RETENTION_S


class Spread(msgspec.Struct, frozen=True):
    """Seconds: median, 99th percentile, longest, of `count`."""

    count: int
    p50: float | None
    p99: float | None
    longest: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of these values."""
        rounded = [round(value, 3) for value in values]
        return cls(
            len(rounded), percentile(rounded, 0.5), percentile(rounded, 0.99), max(rounded, default=None)
        )


class Report(msgspec.Struct, frozen=True):
    """All of it.  `resume_recovered` counts reconnects whose missed events were replayed."""

    setup: Setup
    settled: bool
    seconds: float
    acknowledged: int
    ends: dict[str, int]
    revisions: int
    attempts_beyond_first: int
    faults: dict[str, int]
    faults_without_target: int
    crash_points_hit: dict[str, int]
    client_cuts: int
    client_repeats: int
    connections: int
    transitions_heard: int
    resume_recovered: int
    resume_afresh: int
    requeued_calm: Spread
    running_again_calm: Spread
    running_again_all: Spread
    nats_first_write: Spread
    nats_all_ready: Spread
    violations: list[Violation]
    timeline: list[str]

    @property
    def broken(self) -> Counter[Promise]:
        """How often each promise was broken."""
        return Counter(violation.promise for violation in self.violations)


def report_of(
    setup: Setup,
    evidence: Evidence,
    violations: list[Violation],
    *,
    done: Sequence[Done],
    lives: Sequence[Happened],
    readiness: Sequence[tuple[float, bool]],
    cuts: int,
    repeats: int,
    settled: bool,
    seconds: float,
) -> Report:
    """Everything counted."""
    lives = sorted(lives, key=lambda each: each.at)
    hits = [each for each in done if each.hit]
    lost = recoveries(evidence.history, lives, done)
    returns = nats_returns(evidence.history, lives, readiness)
    connections = [connection for log in evidence.client_logs for connection in log]
    recovered, afresh = resumes(connections)
    latest = [revisions[-1].job for revisions in evidence.history.values()]
    return Report(
        setup=setup,
        settled=settled,
        seconds=round(seconds, 1),
        acknowledged=len({ack.job_id for ack in evidence.acknowledged}),
        ends=dict(Counter(job.error.code if job.error else job.state.value for job in latest)),
        revisions=sum(map(len, evidence.history.values())),
        attempts_beyond_first=sum(max(0, job.attempt - 1) for job in latest),
        faults=dict(Counter(each.fault.kind.value for each in hits)),
        faults_without_target=len(done) - len(hits),
        crash_points_hit=dict(Counter(each.fault.point for each in hits if each.fault.point)),
        client_cuts=cuts,
        client_repeats=repeats,
        connections=len(connections),
        transitions_heard=sum(len(connection.entries) for connection in connections),
        resume_recovered=recovered,
        resume_afresh=afresh,
        requeued_calm=_spread(each.requeued_s for each in lost if each.calm),
        running_again_calm=_spread(each.running_s for each in lost if each.calm),
        running_again_all=_spread(each.running_s for each in lost),
        nats_first_write=_spread(each.first_write_s for each in returns),
        nats_all_ready=_spread(each.all_ready_s for each in returns),
        violations=violations,
        timeline=_timeline(done, lives),
    )


def _spread(values: Iterable[float | None]) -> Spread:
    return Spread.of([value for value in values if value is not None])


def _timeline(done: Sequence[Done], lives: Sequence[Happened]) -> list[str]:
    lines = [
        (
            each.began,
            f"{each.on}: {each.fault.kind} {each.fault.point} {'' if each.hit else '(no target)'}".rstrip(),
        )
        for each in done
    ] + [(each.at, f"{each.member} {each.what}") for each in lives]
    lines.sort()
    return [f"{at:.3f} {line}" for at, line in lines]


def show(report: Report, console: Console) -> None:
    """The report as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _rows(report):
        table.add_row(Text(name, style="dim"), value)
    console.print(table)
    if not report.violations:
        console.print("no violations", style="bold green")
        return
    console.print(f"{len(report.violations)} violations", style="bold red")
    for promise, count in report.broken.items():
        console.print(f"  {count} × {promise}")
    for violation in report.violations[:SHOWN_VIOLATIONS]:
        console.print(
            f"seed {report.setup.seed}, job {violation.job_id or '-'}: {violation.promise}", style="red"
        )
        console.print(f"  {violation.what}", markup=False)
        for line in violation.history:
            console.print(f"    {line}", style="dim", markup=False)


def _rows(report: Report) -> list[tuple[str, str]]:
    setup = report.setup
    return [
        ("seed", str(setup.seed)),
        ("jobs", f"{report.acknowledged} acknowledged of {setup.jobs}; {_counts(report.ends)}"),
        ("faults", f"{sum(report.faults.values())}: {_counts(report.faults)}"),
        ("crash points", _counts(report.crash_points_hit)),
        ("of clients", f"{report.client_cuts} cut after submit, {report.client_repeats} submits repeated"),
        ("attempts beyond the first", str(report.attempts_beyond_first)),
        ("heard", f"{report.transitions_heard} transitions on {report.connections} connections"),
        ("resume", f"{report.resume_recovered} replayed, {report.resume_afresh} started afresh"),
        ("worker killed → queued again", _seconds(report.requeued_calm)),
        ("worker killed → runs again", f"{_seconds(report.running_again_calm)} (calm)"),
        ("", f"{_seconds(report.running_again_all)} (all)"),
        ("nats back → first write", _seconds(report.nats_first_write)),
        ("nats back → gateways ready", _seconds(report.nats_all_ready)),
        ("settled", f"{'yes' if report.settled else 'NO'}, {report.seconds:.0f} s in all"),
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _seconds(spread: Spread) -> str:
    if not spread.count:
        return "none seen"
    return f"p50 {spread.p50} s, p99 {spread.p99} s, longest {spread.longest} s of {spread.count}"
