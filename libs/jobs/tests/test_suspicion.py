"""When a worker counts as dead: never for our own deafness, always for its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reverie_jobs.reaper import Suspicion

LEASE = 2.0


def listening(at: float = 0.0) -> Suspicion:
    suspicion = Suspicion(lease_s=LEASE)
    suspicion.connection(True, now=at)
    return suspicion


def tick_until(suspicion: Suspicion, start: float, stop: float, *, answering: bool = False) -> None:
    steps = round((stop - start) / 0.2)
    for step in range(steps + 1):
        now = start + step * 0.2
        suspicion.tick(["w"], now=now)
        if answering:
            suspicion.answered("w")


def test_a_worker_that_answers_is_never_suspected() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 60, answering=True)
    assert suspicion.dead(now=60) == set()


def test_a_worker_silent_for_a_lease_is_dead_and_not_before() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    tick_until(suspicion, 10.2, 11.8)
    assert suspicion.dead(now=11.8) == set()
    suspicion.tick(["w"], now=12.0)
    assert suspicion.dead(now=12.0) == {"w"}
    assert not suspicion.gone("w")


def test_nobody_listening_twice_is_death_without_waiting_for_the_lease() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    suspicion.absent("w")
    assert suspicion.dead(now=10.2) == set()
    suspicion.absent("w")
    assert suspicion.dead(now=10.4) == {"w"}


def test_an_answer_between_two_absences_clears_the_suspicion() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    suspicion.absent("w")
    suspicion.answered("w")
    suspicion.absent("w")
    assert suspicion.dead(now=10.4) == set()


def test_silence_while_we_were_disconnected_accuses_nobody() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    suspicion.connection(False, now=10)
    tick_until(suspicion, 10.2, 60)
    assert suspicion.dead(now=60) == set()


def test_after_our_own_reconnect_a_worker_has_a_lease_to_come_back() -> None:
    suspicion = listening()
    suspicion.connection(False, now=10)
    suspicion.connection(True, now=20)
    tick_until(suspicion, 20, 21.8)
    suspicion.absent("w")
    suspicion.absent("w")
    assert suspicion.dead(now=21.9) == set()
    assert suspicion.dead(now=22.1) == {"w"}


def test_after_we_were_frozen_ourselves_nobody_is_accused_for_a_lease() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    suspicion.tick(["w"], now=100)
    assert suspicion.dead(now=100) == set()
    tick_until(suspicion, 100.2, 102.0)
    assert suspicion.dead(now=102.0) == {"w"}


def test_a_busy_round_of_ours_is_no_silence_of_others() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    suspicion.awake(now=19)
    suspicion.tick(["w"], now=19.2)
    assert suspicion.dead(now=19.2) == set()


@given(st.lists(st.floats(0.2, 1.1), min_size=5, max_size=60), st.integers(1, 4))
def test_who_is_late_itself_accuses_nobody_that_answers_some_of_its_pings(
    pauses: list[float], answers_each: int
) -> None:
    suspicion, now = listening(), 10.0
    for number, pause in enumerate(pauses):
        now += pause
        suspicion.tick(["w"], now=now)
        assert suspicion.dead(now=now) == set()
        if number % answers_each == 0:
            suspicion.answered("w")


@given(st.lists(st.floats(0.2, 1.1), min_size=11, max_size=40))
def test_who_is_late_itself_notices_the_silent_all_the_same(pauses: list[float]) -> None:
    suspicion, now = listening(), 10.0
    suspicion.tick(["w"], now=now)
    for pause in pauses:
        now += pause
        suspicion.tick(["w"], now=now)
    assert suspicion.dead(now=now) == {"w"}


def test_a_worker_without_jobs_is_no_longer_watched() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    suspicion.tick([], now=10.2)
    assert suspicion.dead(now=60) == set()
