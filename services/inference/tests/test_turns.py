"""The rule of who goes next, and what is learned of the device, as properties over any jobs and any device."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reverie_inference.engine.measured import ENOUGH, FIRST_ROWS, MOST_ROWS, StepTimes
from reverie_inference.engine.turns import PATIENCE_S, Piece, next_turn

pieces = st.lists(
    st.builds(
        Piece,
        job_id=st.uuids().map(str),
        lane=st.integers(0, 3),
        arrival=st.integers(0, 50),
        kind=st.sampled_from("abc"),
        rows=st.sampled_from([1, 2]),
        waited_s=st.sampled_from([0.0, 1.0, PATIENCE_S, 9.0]),
        joining=st.just(False),
    ),
    max_size=12,
    unique_by=lambda piece: piece.arrival,
)


def rides_free(_kind: object, _rows: int, _more: int) -> bool:
    return True


def never_free(_kind: object, _rows: int, _more: int) -> bool:
    return False


def up_to(rows: int) -> Callable[[object, int], bool]:
    return lambda _kind, wanted: wanted <= rows


@given(pieces, st.integers(1, 8), st.booleans())
def test_a_turn_is_of_one_kind_and_led_by_the_highest_lane(
    waiting: list[Piece], most: int, free: bool
) -> None:
    turn = next_turn(waiting, fits=up_to(most), rides_free=rides_free if free else never_free)
    assert bool(turn) == bool(waiting)
    if not turn:
        return
    assert {piece.kind for piece in turn} == {turn[0].kind}
    assert turn[0].lane == min(piece.lane for piece in waiting)
    assert sum(piece.rows for piece in turn) <= max(most, turn[0].rows)
    assert len({piece.job_id for piece in turn}) == len(turn)
    if not free:
        assert {piece.lane for piece in turn} == {turn[0].lane}


@given(pieces, st.integers(1, 8))
def test_who_shares_the_leaders_step_is_left_behind_only_for_want_of_room(
    waiting: list[Piece], most: int
) -> None:
    turn = next_turn(waiting, fits=up_to(most), rides_free=never_free)
    rows = sum(piece.rows for piece in turn)
    for piece in waiting:
        if turn and piece not in turn and (piece.kind, piece.lane) == (turn[0].kind, turn[0].lane):
            assert rows + piece.rows > most


class Engine(RuleBasedStateMachine):
    """Jobs come, change lane and take their turns, each of a second: nobody of the highest lane is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, list[float]] = {}  # lane, arrival, kind, steps left, last served
        self.now = 0.0
        self.arrivals = 0

    @rule(lane=st.integers(0, 1), kind=st.integers(0, 2), steps=st.integers(1, 6))
    def admit(self, lane: int, kind: int, steps: int) -> None:
        self.arrivals += 1
        self.jobs[str(self.arrivals)] = [lane, self.arrivals, kind, steps, self.now]

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), lane=st.integers(0, 1))
    def reprioritise(self, data: st.DataObject, lane: int) -> None:
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        self.jobs[job][0] = lane
        self.jobs[job][4] = self.now

    @precondition(lambda self: self.jobs)
    @rule()
    def step(self) -> None:
        waiting = [
            Piece(job_id, int(lane), int(arrival), kind, 1, self.now - served)
            for job_id, (lane, arrival, kind, _, served) in self.jobs.items()
        ]
        self.now += 1.0
        for piece in next_turn(waiting, fits=up_to(2), rides_free=never_free):
            job = self.jobs[piece.job_id]
            job[3] -= 1
            job[4] = self.now
            if not job[3]:
                del self.jobs[piece.job_id]

    @invariant()
    def nobody_of_the_highest_lane_waits_without_a_bound(self) -> None:
        if not self.jobs:
            return
        lane = min(job[0] for job in self.jobs.values())
        first = [job for job in self.jobs.values() if job[0] == lane]
        if lane == 0:  # lane 1 may wait for lane 0
            assert all(self.now - job[4] <= PATIENCE_S + len(first) + 1 for job in first)


TestEngine = Engine.TestCase
TestEngine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def learn(seconds: Callable[[int], float], *, jobs: int = 64, steps: int = 200) -> int:
    times = StepTimes()
    for _ in range(steps):
        rows = min(jobs, times.most_rows("kind"))
        times.record("kind", rows, seconds(rows))
    return times.most_rows("kind")


def test_the_batch_grows_while_it_makes_more_of_a_second() -> None:
    assert learn(lambda rows: 1.0) == MOST_ROWS
    assert learn(lambda rows: 1.0 + rows / 16) == MOST_ROWS


def test_the_batch_stays_where_a_larger_one_is_no_faster() -> None:
    assert learn(float) <= FIRST_ROWS
    assert learn(lambda rows: max(1.0, rows / 8)) == 8


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=400), st.integers(1, 40))
def test_whatever_is_measured_at_least_one_row_and_never_too_many_fit(
    seconds: list[float], limit: int
) -> None:
    times = StepTimes()
    for index, took in enumerate(seconds):
        rows = times.most_rows("kind")
        if rows > limit:
            times.too_many("kind", rows)
        times.record("kind", min(rows, limit), took)
        assert 1 <= times.most_rows("kind") <= MOST_ROWS, index


def test_a_device_that_was_busy_while_it_was_measured_is_measured_again() -> None:
    times = StepTimes()
    for step in range(600):
        rows = times.most_rows("kind")
        busy = rows > FIRST_ROWS and step < 40
        times.record("kind", rows, 9.0 if busy else 1.0)
    assert times.most_rows("kind") == MOST_ROWS


def test_what_did_not_fit_into_memory_is_not_tried_again() -> None:
    times = StepTimes()
    times.too_many("kind", 4)
    for _ in range(100):
        times.record("kind", times.most_rows("kind"), 1.0)
    assert times.most_rows("kind") == 3


def test_riding_along_is_free_only_where_it_was_seen_to_be() -> None:
    times = StepTimes()

    def measure(kind: str, rows: int, seconds: float) -> None:
        for _ in range(ENOUGH):
            times.record(kind, rows, seconds)

    assert not times.rides_free("kind", 1, 2)
    measure("kind", 1, 1.0)
    measure("kind", 2, 1.5)
    assert not times.rides_free("kind", 1, 2)
    measure("other", 1, 1.0)
    times.record("other", 4, 1.01)
    assert not times.rides_free("other", 1, 2)  # once may have been by chance
    measure("other", 4, 1.01)
    assert times.rides_free("other", 1, 2)


def test_a_batch_that_would_take_more_memory_than_is_free_is_not_tried() -> None:
    times = StepTimes()
    assert times.fits("kind", 4, free_bytes=0)  # nothing is known yet
    for _ in range(ENOUGH):
        times.record("kind", 4, 1.0, took_bytes=400)
    assert times.fits("kind", 8)
    assert times.fits("kind", 8, free_bytes=800)
    assert not times.fits("kind", 8, free_bytes=799)
    assert times.fits("kind", 7, free_bytes=799)
