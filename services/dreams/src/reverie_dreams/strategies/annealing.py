"""`temperature`: simulated annealing.  One walker; worse is accepted now and then, and ever more rarely.

The session's temperature is where it begins; it cools with each candidate: moves grow shorter, standards higher.
"""

from __future__ import annotations

import math
import random

from reverie_dreams.search.candidate import Candidate
from reverie_dreams.search.moves import Move, draw_seed, mutated
from reverie_dreams.search.search import Search
from reverie_dreams.strategies.port import move_of

#: Candidates in which the temperature falls to a half, and after which the walker starts anew elsewhere.
HALF_LIFE, RESTART = 40, 160
#: Strangers at the start of each lap: the walker sets out from the best of them.
SCOUTS = 12
#: A loss of score that is accepted with 1/e at temperature 1, and how often the walker goes back to the best.
TOLERANCE, RETURNS = 0.1, 0.25


class Annealing:
    """The walker's place follows from what was judged: nothing is remembered beside the log."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """See `Strategy.propose`."""
        lap, step = divmod(search.index, RESTART)
        heat = search.temperature * 0.5 ** (step / HALF_LIFE)
        place = self._place(search, heat)
        if place is None or step < SCOUTS:
            modifiers = search.modifiers.draw(rng, temperature=search.temperature / 2)
            return Move(
                seed=draw_seed(rng),
                modifiers=modifiers,
                guidance_scale=search.base.guidance_scale,
                mutation=f"lap {lap}",
            )
        best = search.parents()
        if best and rng.random() < RETURNS:
            place = best[0]
        child = mutated(move_of(place), place.id, search.modifiers, rng, temperature=heat)
        return Move(
            seed=child.seed,
            variations=child.variations,
            modifiers=child.modifiers,
            guidance_scale=child.guidance_scale,
            parents=child.parents,
            mutation=f"heat {heat:.2f}, {child.mutation}",
        )

    @staticmethod
    def _place(search: Search, heat: float) -> Candidate | None:
        """Where the walker is: each judged candidate was a step offered to it, taken or not."""
        place: Candidate | None = None
        for candidate in search.judged:
            if candidate.epoch != search.epoch:
                continue
            gain = 1.0 if place is None else search.fitness(candidate) - search.fitness(place)
            luck = search.rng("accept", candidate.id).random()
            if gain >= 0 or luck < math.exp(gain / max(1e-6, TOLERANCE * heat)):
                place = candidate
        return place
