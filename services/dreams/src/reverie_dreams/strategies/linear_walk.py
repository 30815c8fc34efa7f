"""`linear_walk`: straight on through the noise from one waypoint to the next, in equal steps.

Neighbouring candidates look alike, so a walk shows how one picture turns into another.
"""

from __future__ import annotations

import random

from reverie_dreams.search.moves import Move, along, draw_seed
from reverie_dreams.search.search import Search

#: Steps from waypoint to waypoint at temperature 0 and at 1.
SHORT_STEPS, LONG_STEPS = 16, 4


class LinearWalk:
    """Waypoints are seeds of their own; between two of them the noise goes along the sphere."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """See `Strategy.propose`."""
        del rng  # the walk is laid out by the session's seed alone
        steps = round(SHORT_STEPS + (LONG_STEPS - SHORT_STEPS) * search.temperature)
        leg, step = divmod(search.index, steps)
        start, end = (self._waypoint(search, number) for number in (leg, leg + 1))
        modifiers = search.modifiers.draw(search.rng("walk", leg), temperature=search.temperature)
        if step == 0:
            return Move(seed=start, modifiers=modifiers, mutation=f"waypoint {leg}")
        seed, variations = along(start, (), end, weight=step / steps)
        mutation = f"leg {leg}, step {step} of {steps}"
        return Move(seed=seed, variations=variations, modifiers=modifiers, mutation=mutation)

    @staticmethod
    def _waypoint(search: Search, number: int) -> int:
        return draw_seed(search.rng("waypoint", search.epoch, number))
