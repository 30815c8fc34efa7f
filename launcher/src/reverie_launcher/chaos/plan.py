"""What will go wrong, and when.  Pure: the same seed and sizes give the same plan, on any machine."""

from __future__ import annotations

import random
from collections.abc import Collection
from enum import StrEnum
from typing import Final

import msgspec

#: Faults begin after this share of the span, so that work is under way, and end before the last one.
QUIET_SHARE: Final = 0.05


class FaultKind(StrEnum):
    """What can go wrong on the servers' side; what clients do wrong is in `workload`."""

    KILL_WORKER = "kill-worker"
    FREEZE_WORKER = "freeze-worker"
    CRASH_WORKER = "crash-worker"
    KILL_GATEWAY = "kill-gateway"
    FREEZE_GATEWAY = "freeze-gateway"
    CRASH_GATEWAY = "crash-gateway"
    SLOW_START = "slow-start"
    KILL_MONITOR = "kill-monitor"
    FREEZE_MONITOR = "freeze-monitor"
    KILL_NATS = "kill-nats"
    FREEZE_NATS = "freeze-nats"
    CUT_LINK = "cut-link"
    DELAY_LINK = "delay-link"
    STALL_LINK = "stall-link"
    GARBLE_LINK = "garble-link"
    LOSE_STORE = "lose-store"
    FILL_DISK = "fill-disk"


class Link(StrEnum):
    """Which leg a fault of a connection concerns."""

    CLIENTS = "clients"
    WORKER = "worker"
    GATEWAY = "gateway"


class Fault(msgspec.Struct, frozen=True):
    """One fault: `at_s` after the start, on member number `target`, for `lasts_s`.

    `point` is the crash point that is armed.  `delay_s` is how long each piece of data is held back.
    """

    at_s: float
    kind: FaultKind
    target: int = 0
    lasts_s: float = 0.0
    link: Link | None = None
    point: str = ""
    freezes: bool = False
    delay_s: float = 0.0


#: How often each kind is drawn.  A fault of nats-server concerns everybody, so it is rarer.
WEIGHTS: Final[dict[FaultKind, int]] = {
    FaultKind.KILL_WORKER: 6,
    FaultKind.FREEZE_WORKER: 3,
    FaultKind.CRASH_WORKER: 5,
    FaultKind.KILL_GATEWAY: 4,
    FaultKind.FREEZE_GATEWAY: 2,
    FaultKind.CRASH_GATEWAY: 4,
    FaultKind.SLOW_START: 2,
    FaultKind.KILL_MONITOR: 1,
    FaultKind.FREEZE_MONITOR: 1,
    FaultKind.KILL_NATS: 3,
    FaultKind.FREEZE_NATS: 1,
    FaultKind.CUT_LINK: 6,
    FaultKind.DELAY_LINK: 4,
    FaultKind.STALL_LINK: 3,
    FaultKind.GARBLE_LINK: 2,
    FaultKind.LOSE_STORE: 1,
    FaultKind.FILL_DISK: 2,
}
#: Seconds that a fault lasts, from and to.  A frozen worker wakes before and after its lease of 2 s is over.
LASTS_S: Final[dict[FaultKind, tuple[float, float]]] = {
    FaultKind.KILL_WORKER: (0.1, 1.5),
    FaultKind.FREEZE_WORKER: (0.5, 6.0),
    FaultKind.CRASH_WORKER: (0.5, 6.0),
    FaultKind.KILL_GATEWAY: (0.1, 1.5),
    FaultKind.FREEZE_GATEWAY: (0.5, 5.0),
    FaultKind.CRASH_GATEWAY: (0.5, 5.0),
    FaultKind.SLOW_START: (4.0, 10.0),
    FaultKind.KILL_MONITOR: (0.1, 1.5),
    FaultKind.FREEZE_MONITOR: (0.5, 5.0),
    FaultKind.KILL_NATS: (0.05, 2.0),
    FaultKind.FREEZE_NATS: (0.2, 4.0),
    FaultKind.CUT_LINK: (0.0, 0.5),
    FaultKind.DELAY_LINK: (1.0, 6.0),
    FaultKind.STALL_LINK: (0.5, 6.0),
    FaultKind.GARBLE_LINK: (0.0, 0.0),
    FaultKind.LOSE_STORE: (0.2, 3.0),
    FaultKind.FILL_DISK: (0.2, 3.0),
}
DELAY_S: Final = (0.01, 0.4)
DELAYING: Final = (FaultKind.DELAY_LINK, FaultKind.SLOW_START)

#: Every crash point that random faults may arm, by who comes by; `tests/faults` runs each of them once.
WORKER_POINTS: Final = (
    "before.queued-running",
    "after.queued-running",
    "before.output",
    "after.output",
    "before.running-completed",
    "after.running-completed",
    "before.running-cancelled",
    "after.running-cancelled",
)
GATEWAY_POINTS: Final = (
    "before.submit",
    "after.submit",
    "acknowledged.submit",
    "before.queued-cancelled",
    "after.queued-cancelled",
    "before.queued-queued",
    "after.queued-queued",
    "before.running-running",
    "after.running-running",
    "acknowledged.cancel",
    "before.running-queued",
    "after.running-queued",
    "before.running-failed",
    "after.running-failed",
    "before.queued-failed",
    "after.queued-failed",
)
#: Where somebody comes by all the time; at the others an armed point mostly waits in vain.
POINT_WEIGHTS: Final = {
    "before.submit": 6,
    "after.submit": 6,
    "acknowledged.submit": 6,
    "before.queued-running": 4,
    "after.queued-running": 4,
    "before.output": 4,
    "after.output": 4,
    "before.running-completed": 4,
    "after.running-completed": 4,
    "acknowledged.cancel": 2,
    "before.running-queued": 2,
    "after.running-queued": 2,
}


def plan_faults(
    *,
    seed: int,
    count: int,
    span_s: float,
    workers: int,
    gateways: int,
    only: Collection[FaultKind] = (),
) -> list[Fault]:
    """`count` faults over `span_s`, in order of time; of `only` these kinds if any are named."""
    rng = random.Random(f"faults {seed}")
    weights = {kind: weight for kind, weight in WEIGHTS.items() if not only or kind in only}
    kinds = rng.choices(list(weights), weights=list(weights.values()), k=count)
    times = sorted(rng.uniform(QUIET_SHARE, 1.0) * span_s for _ in kinds)
    return [
        _fault(rng, kind, round(at_s, 3), workers=workers, gateways=gateways)
        for at_s, kind in zip(times, kinds, strict=True)
    ]


def _fault(rng: random.Random, kind: FaultKind, at_s: float, *, workers: int, gateways: int) -> Fault:
    lasts_s = round(rng.uniform(*LASTS_S[kind]), 3)
    link = None
    if kind in (FaultKind.CUT_LINK, FaultKind.DELAY_LINK, FaultKind.STALL_LINK):
        link = rng.choice(list(Link))
    elif kind is FaultKind.GARBLE_LINK:
        link = Link.CLIENTS  # towards NATS there is no check on what a broken network would have to hide
    at_worker = link is Link.WORKER or kind in (
        FaultKind.KILL_WORKER,
        FaultKind.FREEZE_WORKER,
        FaultKind.CRASH_WORKER,
        FaultKind.FILL_DISK,
    )
    points = {FaultKind.CRASH_WORKER: WORKER_POINTS, FaultKind.CRASH_GATEWAY: GATEWAY_POINTS}.get(kind)
    return Fault(
        at_s=at_s,
        kind=kind,
        target=rng.randrange(workers if at_worker else gateways),
        lasts_s=lasts_s,
        link=link,
        point=rng.choices(points, weights=[POINT_WEIGHTS.get(point, 1) for point in points])[0]
        if points
        else "",
        freezes=bool(points) and rng.random() < 0.3,
        delay_s=round(rng.uniform(*DELAY_S), 3) if kind in DELAYING else 0.0,
    )
