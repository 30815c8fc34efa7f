"""How fast things came back, from what was seen.  Pure; times are epoch seconds of one machine."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

import msgspec

from reverie_launcher.chaos.evidence import History
from reverie_launcher.chaos.injector import Done
from reverie_launcher.chaos.member import Happened
from reverie_launcher.restarts import describe_exit
from reverie_protocol.jobs import JobState

#: A death is calm if nothing else went wrong from so long before it until its job ran again.
CALM_S: Final = 2.5
BY_KILL: Final = describe_exit(-signal.SIGKILL)


class Recovery(msgspec.Struct, frozen=True):
    """A job whose worker died: seconds until it was queued again, and until it ran again; None if it never did."""

    job_id: str
    worker: str
    requeued_s: float | None
    running_s: float | None
    calm: bool


def recoveries(history: History, lives: Sequence[Happened], done: Sequence[Done]) -> list[Recovery]:
    """What became of the jobs that killed workers were running."""
    found = []
    for death in _deaths([each for each in lives if each.member.startswith("worker")]):
        for job_id, revisions in history.items():
            held = [each for each in revisions if each.at <= death.at]
            if not held or held[-1].job.state is not JobState.RUNNING or held[-1].job.cancel:
                continue
            worker = held[-1].job.worker or ""
            if worker.rpartition(".")[0] != death.member:
                continue
            later = revisions[len(held) :]
            requeued = next((each.at for each in later if each.job.state is JobState.QUEUED), None)
            running = next(
                (
                    each.at
                    for each in later
                    if each.job.state is JobState.RUNNING and each.job.worker != worker
                ),
                None,
            )
            until = running or (later[-1].at if later else death.at)
            found.append(
                Recovery(
                    job_id,
                    worker,
                    requeued - death.at if requeued else None,
                    running - death.at if running else None,
                    calm=_calm(death, until, done),
                )
            )
    return found


def _deaths(lives: Sequence[Happened]) -> list[Happened]:
    """When workers were killed: by us, or (noticed a little later) by themselves at a crash point."""
    deaths: list[Happened] = []
    last: dict[str, str] = {}
    for each in lives:
        if each.what == "killed" or (each.what == BY_KILL and last.get(each.member) != "killed"):
            deaths.append(each)
        last[each.member] = each.what
    return deaths


def _calm(death: Happened, until: float, done: Sequence[Done]) -> bool:
    return not any(
        each.hit and each.on != death.member and each.began < until and each.ended > death.at - CALM_S
        for each in done
    )


class NatsReturn(msgspec.Struct, frozen=True):
    """A restart of nats-server: seconds from its answer to the next write of a job, and until all were ready."""

    down_s: float
    first_write_s: float | None
    all_ready_s: float | None


def nats_returns(
    history: History, lives: Sequence[Happened], readiness: Sequence[tuple[float, bool]]
) -> list[NatsReturn]:
    """Each return after a kill.  `readiness` is when all services were asked, and whether all were ready."""
    own = [each for each in lives if each.member == "nats"]
    writes = sorted(each.at for revisions in history.values() for each in revisions)
    found = []
    for killed in (each for each in own if each.what == "killed"):
        back = next((each.at for each in own if each.what == "ready" and each.at > killed.at), None)
        if back is None:
            continue
        again = next((each.at for each in own if each.what == "killed" and each.at > back), float("inf"))
        write = next((at for at in writes if back - 0.1 < at < again), None)
        ready = next((at for at, all_ready in readiness if all_ready and back < at < again), None)
        found.append(
            NatsReturn(
                back - killed.at,
                max(0.0, write - back) if write else None,
                ready - back if ready else None,
            )
        )
    return found


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that this share of them does not exceed; None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
