"""Waits and throughput with three lanes, several models and sizes, and two workers, on a virtual clock.

    .venv/bin/python benchmarks/scheduling.py [--seconds 600] [--load 0.6] [--seed 6] [--trace FILE]

The rules are the real ones: `reverie_jobs.claiming.choose` says which job a worker takes, `engine.turns.next_turn`
who goes into a turn, `engine.measured.StepTimes` how many rows share it.  Only the device is a model: a turn takes
`base + rows × each` seconds of its model and size.  Against two baselines on the same arrivals and device:

- `fifo`: each worker makes one job after the other, in order of arrival;
- `static`: a worker waits until it has 4 jobs alike (or the first has waited 1 s), and makes them in one batch to
  the end.

A trace is JSON lines `{"at": seconds, "lane": 1, "model": "a", "size": 64, "steps": 20}`; without one it is drawn:
interactive users (lane 1), batches of 8 at once (lane 2), and background jobs (lane 3) that come without end.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final

import msgspec
from product import percentile

from reverie_inference.engine.measured import StepTimes
from reverie_inference.engine.turns import Piece, next_turn
from reverie_jobs.claiming import choose
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobState,
    JobType,
    Lane,
    ModeInfo,
    Worker,
    WorkerState,
)

WORKERS: Final = 2
DISPLACED: Final = 16
FIRST_JOBS, MOST_JOBS = 2, 16
#: Seconds of a turn: base, and each row; by the device's model.
MODELS: Final = {"a": (0.008, 0.003), "b": (0.030, 0.004)}
SIZES: Final = (64, 128)
ROWS: Final = 2
LOAD_S: Final = 2.0
BATCH, BATCH_WAIT_S = 4, 1.0


class Arrival(msgspec.Struct, frozen=True):
    """A job as it comes."""

    at: float
    lane: Lane
    model: str
    size: int
    steps: int


class Outcome(msgspec.Struct):
    """What became of it, in seconds since the beginning."""

    arrival: Arrival
    first_step: float = 0.0
    ended: float = 0.0


def turn_seconds(kind: tuple[str, int], rows: int) -> float:
    """What the device takes; four times the pixels take four times as long a row."""
    base, each = MODELS[kind[0]]
    return base + rows * each * (kind[1] / SIZES[0]) ** 2


def drawn(seconds: float, load: float, rng: random.Random) -> list[Arrival]:
    """Interactive and batch work of about this share of what two workers can make one by one, and background."""
    alone = sum(turn_seconds((model, size), ROWS) for model in MODELS for size in SIZES) / 4 * 20
    rate = load * WORKERS / alone
    arrivals: list[Arrival] = []

    def come(lane: Lane, per_second: float, many: int) -> None:
        now = rng.expovariate(per_second)
        while now < seconds:
            model, size = rng.choices(("a", "b"), (3, 1))[0], rng.choices(SIZES, (3, 1))[0]
            arrivals.extend(Arrival(now, lane, model, size, rng.choice((10, 20, 30))) for _ in range(many))
            now += rng.expovariate(per_second)

    come(Lane.NORMAL, rate / 2, 1)
    come(Lane.BATCH, rate / 16, 8)
    come(Lane.BACKGROUND, rate, 1)
    return sorted(arrivals, key=lambda arrival: arrival.at)


class Reverie:
    """One worker: claims by the real rule, steps by the real rule."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times = StepTimes()
        self.room = FIRST_JOBS
        self.loaded: set[str] = set()
        #: Steps left, and when it was served last, of each job in the engine, by its place.
        self.left: dict[int, int] = {}
        self.served: dict[int, float] = {}
        self.lanes: dict[int, Lane] = {}

    def claim(self, queue: dict[int, Job], outcomes: list[Outcome], now: float) -> float:
        """Take what there is room for; seconds spent on loading models."""
        loading = 0.0
        while len(self.left) < self.room + DISPLACED:
            held = list(self.lanes.values())
            full = frozenset(lane for lane in Lane if sum(other <= lane for other in held) >= self.room)
            job = choose(queue.values(), self._record(), now=now, paused=full)
            if job is None:
                return loading
            place = int(job.id)
            del queue[place]
            arrival = outcomes[place].arrival
            self.left[place], self.served[place], self.lanes[place] = arrival.steps, now, arrival.lane
            if arrival.model not in self.loaded:
                self.loaded.add(arrival.model)
                loading += LOAD_S
        return loading

    def turn(self, outcomes: list[Outcome], now: float) -> float:
        """One turn from `now` on; its seconds, 0 if there is nothing to do."""
        in_work = sorted(self.left, key=lambda place: (self.lanes[place], place))[: self.room]
        pieces = [
            Piece(
                str(place),
                self.lanes[place],
                place,
                _kind(outcomes[place].arrival),
                ROWS,
                waited_s=now - self.served[place],
            )
            for place in in_work
        ]
        chosen = next_turn(pieces, fits=self.times.fits, rides_free=self.times.rides_free)
        if not chosen:
            return 0.0
        kind: Any = chosen[0].kind
        rows = sum(piece.rows for piece in chosen)
        seconds = turn_seconds(kind, rows)
        self.times.record(kind, rows, seconds)
        self.room = max(1, min(MOST_JOBS, self.times.most_rows(kind) // ROWS))
        for piece in chosen:
            place = int(piece.job_id)
            self.served[place] = now + seconds
            self.left[place] -= 1
            outcomes[place].first_step = outcomes[place].first_step or now + seconds
            if not self.left[place]:
                outcomes[place].ended = now + seconds
                del self.left[place], self.served[place], self.lanes[place]
        return seconds

    def _record(self) -> Worker:
        return Worker(
            name=self.name,
            service="inference",
            incarnation="1",
            state=WorkerState.READY,
            started_at=0.0,
            beat_at=0.0,
            job_types=(JobType.GENERATE,),
            mode="a",
            modes={model: ModeInfo(model=model, loaded=model in self.loaded) for model in MODELS},
            slots=self.room,
        )


class Fifo:
    """One worker: one job after the other, as they came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loaded: set[str] = set()
        self._batch: list[int] = []
        self._left: list[int] = []
        self._loading = 0.0

    def claim(self, queue: dict[int, Job], outcomes: list[Outcome], now: float) -> float:
        """Take the next if there is none; seconds spent on loading models."""
        if self._batch:
            return 0.0
        self._batch = self._choose(queue, outcomes, now)
        self._left = [outcomes[place].arrival.steps for place in self._batch]
        for place in self._batch:
            del queue[place]
        needed = {outcomes[place].arrival.model for place in self._batch} - self.loaded
        self.loaded |= needed
        return LOAD_S * len(needed)

    def turn(self, outcomes: list[Outcome], now: float) -> float:
        """One step of what it has; the batch goes on until its longest is done."""
        if not self._batch:
            return 0.0
        seconds = turn_seconds(_kind(outcomes[self._batch[0]].arrival), ROWS * len(self._batch))
        self._left = [left - 1 for left in self._left]
        for place in self._batch:
            outcomes[place].first_step = outcomes[place].first_step or now + seconds
        if max(self._left) <= 0:
            for place in self._batch:
                outcomes[place].ended = now + seconds
            self._batch = []
        return seconds

    def _choose(self, queue: dict[int, Job], outcomes: list[Outcome], now: float) -> list[int]:
        return [min(queue)] if queue else []


class Static(Fifo):
    """One worker: batches that are closed when they begin."""

    def _choose(self, queue: dict[int, Job], outcomes: list[Outcome], now: float) -> list[int]:
        alike: dict[Hashable, list[int]] = {}
        for place in sorted(queue):
            alike.setdefault(_kind(outcomes[place].arrival), []).append(place)
        ready = [
            places
            for places in alike.values()
            if len(places) >= BATCH or now - outcomes[places[0]].arrival.at >= BATCH_WAIT_S
        ]
        return min(ready, default=[])[:BATCH]


def _kind(arrival: Arrival) -> tuple[str, int]:
    return (arrival.model, arrival.size)


def simulate(arrivals: list[Arrival], until: float, make: Callable[[str], Reverie | Fifo]) -> list[Outcome]:
    """Run all arrivals through two workers, on a clock of its own, until a time."""
    outcomes = [Outcome(arrival) for arrival in arrivals]
    queue: dict[int, Job] = {}
    workers = [make(f"worker-{number}") for number in range(WORKERS)]
    clock = [(0.0, number) for number in range(WORKERS)]
    come = 0
    while clock and clock[0][0] < until:
        now, number = heapq.heappop(clock)
        while come < len(arrivals) and arrivals[come].at <= now:
            queue[come] = _job(come, arrivals[come])
            come += 1
        worker = workers[number]
        spent = worker.claim(queue, outcomes, now)
        spent += worker.turn(outcomes, now + spent)
        if not spent:  # idle until somebody comes, or a batch has waited for long enough
            spent = min(0.05, max(arrivals[come].at - now, 1e-6)) if come < len(arrivals) else 0.05
        heapq.heappush(clock, (now + spent, number))
    return outcomes


def _job(place: int, arrival: Arrival) -> Job:
    return Job(
        id=str(place),
        owner="somebody",
        type=JobType.GENERATE,
        state=JobState.QUEUED,
        priority=arrival.lane,
        position=float(place),
        params=GenerateParams(prompt="", mode=arrival.model),
        created_at=arrival.at,
        enqueued_at=arrival.at,
        updated_at=arrival.at,
    )


def tell(name: str, outcomes: list[Outcome], seconds: float) -> None:
    """One line: waits for the first step by lane, and steps a second."""
    ended = [outcome for outcome in outcomes if outcome.ended]
    row: dict[str, Any] = {
        "figure": "scheduling on a virtual clock",
        "rule": name,
        "pictures_per_s": round(len(ended) / seconds, 2),
        "steps_per_s": round(sum(outcome.arrival.steps for outcome in ended) / seconds, 1),
    }
    for lane in (Lane.NORMAL, Lane.BATCH, Lane.BACKGROUND):
        of_lane = [outcome for outcome in outcomes if outcome.arrival.lane is lane]
        # Who has not begun by the end has waited until then at least.
        waits = [(each.first_step or seconds) - each.arrival.at for each in of_lane]
        row[lane.name.lower()] = {
            "jobs": len(of_lane),
            "done": sum(bool(each.ended) for each in of_lane),
            "wait_p50_s": round(percentile(waits, 0.5), 3),
            "wait_p95_s": round(percentile(waits, 0.95), 3),
            "wait_max_s": round(max(waits), 3),
        }
    print(json.dumps(row), flush=True)


def main() -> None:
    """Print one line for each rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--trace", type=Path)
    options = parser.parse_args()
    if options.trace is not None:
        lines = options.trace.read_text().splitlines()
        arrivals = [msgspec.json.decode(line, type=Arrival) for line in lines if line.strip()]
    else:
        arrivals = drawn(options.seconds, options.load, random.Random(options.seed))
    rules: dict[str, Callable[[str], Reverie | Fifo]] = {"reverie": Reverie, "fifo": Fifo, "static": Static}
    for name, make in rules.items():
        tell(name, simulate(arrivals, options.seconds, make), options.seconds)


if __name__ == "__main__":
    main()
