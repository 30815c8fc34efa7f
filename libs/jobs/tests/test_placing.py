"""Moves inside a lane."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_jobs.placing import Place, Spot, position_at, position_for

PLACES: list[Place] = [(1.0, "a"), (2.0, "b"), (3.0, "c")]


@pytest.mark.parametrize(
    ("spot", "beside", "expected"),
    [
        (Spot.FRONT, None, ["new", "a", "b", "c"]),
        (Spot.BACK, None, ["a", "b", "c", "new"]),
        (Spot.BEFORE, "b", ["a", "new", "b", "c"]),
        (Spot.AFTER, "b", ["a", "b", "new", "c"]),
        (Spot.BEFORE, "a", ["new", "a", "b", "c"]),
        (Spot.AFTER, "c", ["a", "b", "c", "new"]),
    ],
)
def test_a_move_puts_the_job_where_it_was_asked_to_be(
    spot: Spot, beside: str | None, expected: list[str]
) -> None:
    position = position_for(PLACES, spot, beside=beside)
    assert [id_ for _, id_ in sorted([*PLACES, (position, "new")])] == expected


def test_a_neighbour_that_no_longer_waits_is_named() -> None:
    with pytest.raises(KeyError, match="gone"):
        position_for(PLACES, Spot.BEFORE, beside="gone")


@given(st.lists(st.integers(0, 12), max_size=30))
def test_any_series_of_moves_to_an_index_ends_in_the_order_that_was_asked_for(moves: list[int]) -> None:
    wanted: list[str] = []
    places: list[Place] = []
    for number, index in enumerate(moves):
        at = min(index, len(wanted))
        wanted.insert(at, f"{number:02d}")
        places.append((position_at(sorted(places), index), f"{number:02d}"))
    assert [id_ for _, id_ in sorted(places)] == wanted
