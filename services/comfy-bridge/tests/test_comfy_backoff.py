"""Delays between tries to reach an instance."""

from __future__ import annotations

from random import Random

import pytest

from reverie_comfy_bridge.instance.backoff import LAST_BOUND_S, LEAST_S, Backoff


def test_the_first_tries_follow_within_a_quarter_of_a_second() -> None:
    backoff = Backoff(lambda: 0.999)
    assert all(backoff.next() <= 0.26 for _ in range(5))


def test_delays_grow_to_five_seconds_and_go_on_for_ever() -> None:
    backoff = Backoff(lambda: 0.999999)
    delays = [backoff.next() for _ in range(5_000)]
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(LAST_BOUND_S, abs=0.01)
    assert max(delays) <= LAST_BOUND_S
    assert backoff.attempts == 5_000


def test_delays_are_spread_over_all_of_their_bound() -> None:
    random = Random(1)
    backoff = Backoff(random.random)
    delays = [backoff.next() for _ in range(10)]
    assert min(delays) < 0.06
    assert max(delays) > 0.19


def test_a_draw_of_nothing_is_no_busy_loop() -> None:
    assert Backoff(lambda: 0.0).next() == LEAST_S


def test_once_reached_it_begins_anew() -> None:
    backoff = Backoff(lambda: 0.999999)
    for _ in range(1_000):
        backoff.next()
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next() < 0.26


def test_a_restart_of_up_to_a_minute_is_noticed_within_a_second_in_99_of_100_cases() -> None:
    random = Random(7)
    waits = []
    for _ in range(1_000):
        away_s = random.uniform(20, 55)
        backoff, now = Backoff(random.random), 0.0
        while now < away_s:
            now += backoff.next()
        waits.append(now - away_s)
    assert sorted(waits)[989] <= 1.0


def test_a_server_that_drops_each_connection_at_once_is_asked_less_and_less_until_one_holds() -> None:
    backoff = Backoff(lambda: 0.5)
    delays = []
    for _ in range(20):
        backoff.reset()
        backoff.ended(0.1)
        delays.append(backoff.next())
    assert max(delays[:3]) < 0.26
    assert delays == sorted(delays)
    assert 2.5 < delays[-1] <= LAST_BOUND_S
    backoff.ended(60.0)
    assert backoff.next() < 0.26
