"""Every durable write has a crash point before and one after it; whoever dies or freezes there, nothing is lost."""

from __future__ import annotations

import pytest

from reverie_jobs.transitions import TRANSITIONS
from reverie_launcher.chaos.cluster import Cluster
from reverie_launcher.chaos.crash_cases import all_cases, kind, pass_point

pytestmark = pytest.mark.asyncio(loop_scope="module")


NAMES = [f"{'freezes at' if freezes else 'dies at'} {point}" for point, freezes in all_cases()]


@pytest.mark.parametrize(("point", "freezes"), all_cases(), ids=NAMES)
async def test_nothing_is_lost_when_somebody(cluster: Cluster, point: str, freezes: bool) -> None:
    passed = await pass_point(cluster, point, freezes=freezes)
    assert passed.violations == ()
    assert passed.hit
    assert passed.state in passed.expected


async def test_every_transition_of_the_table_has_its_points_on_the_list() -> None:
    moves = {f"{before}-{after}" for (before, _), after in TRANSITIONS.items()}
    moves -= {"queued-queued"}  # another place in the queue: no client of this harness asks for it
    assert moves <= {kind(point) for point, _ in all_cases()}
