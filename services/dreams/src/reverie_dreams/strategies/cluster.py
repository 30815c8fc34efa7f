"""`cluster`: many kinds of good pictures instead of one.

What was judged is grouped by looks; the next child is born in the group that promises most: fit, seldom visited.
"""

from __future__ import annotations

import math
import random

import numpy as np

from reverie_dreams.search.candidate import Candidate
from reverie_dreams.search.moves import Move, draw_seed, mutated
from reverie_dreams.search.search import Search
from reverie_dreams.strategies.port import move_of

FOUNDERS, STRANGERS = 12, 0.2
MOST_CLUSTERS, ROUNDS = 8, 8
#: Weight of curiosity against fitness.
CURIOSITY = 0.25


class Cluster:
    """k-means over signatures, then the upper confidence bound of each group's best."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """See `Strategy.propose`."""
        seen = [c for c in search.judged if c.epoch == search.epoch and c.signature]
        if len(seen) < FOUNDERS or rng.random() < STRANGERS:
            modifiers = search.modifiers.draw(rng, temperature=search.temperature)
            return Move(
                seed=draw_seed(rng),
                modifiers=modifiers,
                guidance_scale=search.base.guidance_scale,
                mutation="scout",
            )
        groups = grouped(seen, min(MOST_CLUSTERS, max(2, len(seen) // 6)), rng)
        chosen = max(groups, key=lambda group: (self._promise(search, group, len(seen)), -group[0].id))
        best = max(chosen, key=lambda c: (search.fitness(c), -c.id))
        child = mutated(move_of(best), best.id, search.modifiers, rng, temperature=search.temperature)
        return Move(
            seed=child.seed,
            variations=child.variations,
            modifiers=child.modifiers,
            guidance_scale=child.guidance_scale,
            parents=child.parents,
            mutation=f"group of {len(chosen)}, {child.mutation}",
        )

    @staticmethod
    def _promise(search: Search, group: list[Candidate], all_: int) -> float:
        best = max(search.fitness(candidate) for candidate in group)
        return best + CURIOSITY * math.sqrt(math.log(all_) / len(group))


def grouped(candidates: list[Candidate], count: int, rng: random.Random) -> list[list[Candidate]]:
    """Candidates by the direction of their signatures; no group is empty."""
    points = np.asarray([candidate.signature for candidate in candidates], float)
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-9
    centres = points[rng.sample(range(len(points)), count)]
    nearest = np.zeros(len(points), int)
    for _ in range(ROUNDS):
        nearest = np.argmax(points @ centres.T, axis=1)
        for number in range(count):
            members = points[nearest == number]
            if len(members):
                centre = members.sum(axis=0)
                centres[number] = centre / (np.linalg.norm(centre) + 1e-9)
    groups = [
        [candidate for candidate, group in zip(candidates, nearest, strict=True) if group == number]
        for number in range(count)
    ]
    return [group for group in groups if group]
