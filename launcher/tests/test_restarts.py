"""The pure part of restarting: how long to wait, and how an end is told."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_launcher.restarts import (
    FIRST_DELAY_S,
    JITTER,
    LONGEST_DELAY_S,
    STABLE_AFTER_S,
    Backoff,
    describe_exit,
)


def test_the_first_crash_waits_a_tenth_of_a_second_and_each_next_one_about_twice_as_long() -> None:
    backoff = Backoff(random.Random(1))
    delays = [backoff.after_crash(0.0) for _ in range(6)]
    assert delays[0] == FIRST_DELAY_S
    for count, delay in enumerate(delays):
        assert delay == pytest.approx(FIRST_DELAY_S * 2**count, rel=JITTER)


@given(st.integers(), st.integers(min_value=1, max_value=2000))
def test_no_number_of_crashes_waits_longer_than_the_longest_delay(seed: int, crashes: int) -> None:
    backoff = Backoff(random.Random(seed))
    assert all(0 < backoff.after_crash(1.0) <= LONGEST_DELAY_S for _ in range(crashes))


def test_a_child_that_had_lived_long_enough_starts_from_the_first_delay_again() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.after_crash(0.0)
    assert backoff.after_crash(STABLE_AFTER_S) == FIRST_DELAY_S


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-99, "was killed by signal 99"),
    ],
)
def test_an_end_is_told_in_words(returncode: int, words: str) -> None:
    assert describe_exit(returncode) == words
