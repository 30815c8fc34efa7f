"""`random`: every candidate anew, knowing nothing of those before.  The measure for all others."""

from __future__ import annotations

import random

from reverie_dreams.search.moves import Move, draw_seed, scaled
from reverie_dreams.search.search import Search


class RandomDraw:
    """Fresh noise, and modifiers as the temperature allows."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """See `Strategy.propose`."""
        temperature = search.temperature
        return Move(
            seed=draw_seed(rng),
            modifiers=search.modifiers.draw(rng, temperature=temperature),
            guidance_scale=scaled(search.base.guidance_scale, rng, temperature=temperature),
            mutation="fresh",
        )
