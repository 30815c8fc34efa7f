"""`slerp`: between the best.  The noise of two of them is joined at a half, a quarter and three quarters."""

from __future__ import annotations

import random
from itertools import combinations

from reverie_dreams.search.moves import Move, along, draw_seed
from reverie_dreams.search.search import Search

FOUNDERS = 6
#: Fittest candidates between which is looked, and where.
POOL, PLACES = 8, (0.5, 0.25, 0.75)
STRANGERS = 0.25


class Slerp:
    """A pair and a place on the way between them that was not tried yet; else strangers, who make new pairs."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """See `Strategy.propose`."""
        pool = search.parents()[:POOL]
        if search.index < FOUNDERS or len(pool) < 2 or rng.random() < STRANGERS * (0.5 + search.temperature):
            return self._stranger(search, rng)
        tried = {(c.parents, c.mutation) for c in (*search.judged, *search.flying.values())}
        for place in PLACES:
            for one, other in combinations(pool, 2):
                mutation = f"between, {place}"
                if ((one.id, other.id), mutation) in tried:
                    continue
                # Small moves of the second parent are not followed: its seed is what carries its picture.
                seed, variations = along(one.seed, one.params.variations, other.seed, weight=place)
                modifiers = one.modifiers if place <= 0.5 else other.modifiers
                return Move(
                    seed=seed,
                    variations=variations,
                    modifiers=modifiers,
                    guidance_scale=one.params.guidance_scale,
                    parents=(one.id, other.id),
                    mutation=mutation,
                )
        return self._stranger(search, rng)

    @staticmethod
    def _stranger(search: Search, rng: random.Random) -> Move:
        modifiers = search.modifiers.draw(rng, temperature=search.temperature)
        return Move(
            seed=draw_seed(rng),
            modifiers=modifiers,
            guidance_scale=search.base.guidance_scale,
            mutation="stranger",
        )
