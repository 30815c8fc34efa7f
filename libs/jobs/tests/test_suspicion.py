"""When a worker counts as dead: never for our own deafness, always for its own."""

from __future__ import annotations

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
            suspicion.answered("w", now=now)


def test_a_worker_that_answers_is_never_suspected() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 60, answering=True)
    assert suspicion.dead(now=60) == set()


def test_a_worker_silent_for_a_lease_is_dead_and_not_before() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    tick_until(suspicion, 10.2, 11.8)
    assert suspicion.dead(now=11.9) == set()
    assert suspicion.dead(now=12.0) == {"w"}


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
    suspicion.answered("w", now=10.1)
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
    tick_until(suspicion, 100.2, 101.8)
    assert suspicion.dead(now=102.2) == {"w"}


def test_rounds_that_wait_for_a_silent_worker_are_no_freeze_of_ours() -> None:
    suspicion = listening()
    for step in range(20):
        suspicion.tick(["w", "frozen"], now=step * 0.9)
        suspicion.answered("w", now=step * 0.9)
    assert suspicion.dead(now=19 * 0.9) == {"frozen"}


def test_a_worker_without_jobs_is_no_longer_watched() -> None:
    suspicion = listening()
    tick_until(suspicion, 0, 10, answering=True)
    suspicion.tick([], now=10.2)
    assert suspicion.dead(now=60) == set()
