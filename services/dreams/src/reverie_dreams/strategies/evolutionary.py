"""`evolutionary`: the fit have children.  Parents win small tournaments; children cross two of them, and mutate."""

from __future__ import annotations

import random

from msgspec.structs import replace

from reverie_dreams.search.candidate import Candidate
from reverie_dreams.search.moves import Move, along, draw_seed, mutated
from reverie_dreams.search.search import Search
from reverie_dreams.strategies.port import move_of

#: Strangers before there are parents, and the part of strangers after.
FOUNDERS, STRANGERS = 8, 0.15
#: Parents are among the fittest so many; each wins against so many others.
POOL, TOURNAMENT = 24, 3


class Evolutionary:
    """Selection by tournament, crossover of noise and modifiers, mutation by temperature."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """See `Strategy.propose`."""
        pool = search.parents()[:POOL]
        if search.index < FOUNDERS or len(pool) < 2 or rng.random() < STRANGERS:
            modifiers = search.modifiers.draw(rng, temperature=search.temperature / 2)
            return Move(
                seed=draw_seed(rng),
                modifiers=modifiers,
                guidance_scale=search.base.guidance_scale,
                mutation="founder" if search.index < FOUNDERS else "stranger",
            )
        mother, father = self._winner(search, pool, rng), self._winner(search, pool, rng)
        child = mutated(move_of(mother), mother.id, search.modifiers, rng, temperature=search.temperature)
        if father.id == mother.id:
            return child
        return self._crossed(child, mother, father, rng)

    @staticmethod
    def _winner(search: Search, pool: list[Candidate], rng: random.Random) -> Candidate:
        rivals = rng.sample(pool, min(TOURNAMENT, len(pool)))
        return max(rivals, key=lambda rival: (search.fitness(rival), -rival.id))

    @staticmethod
    def _crossed(child: Move, mother: Candidate, father: Candidate, rng: random.Random) -> Move:
        weight = 0.15 + 0.3 * rng.random()
        seed, variations = along(child.seed, child.variations, father.seed, weight=weight)
        both = dict.fromkeys((*mother.modifiers, *father.modifiers))
        modifiers = tuple(phrase for phrase in both if rng.random() < 0.5)
        return replace(
            child,
            seed=seed,
            variations=variations,
            modifiers=modifiers,
            parents=(mother.id, father.id),
            mutation=f"cross {weight:.2f}, {child.mutation}",
        )
