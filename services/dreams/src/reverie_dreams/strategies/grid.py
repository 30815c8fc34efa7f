"""`grid`: every combination of a few seeds, guidance scales and modifiers, row by row; then a grid of other seeds.

What differs between two candidates is one thing at a time, so a grid answers "what does this knob do?".
"""

from __future__ import annotations

import random

from reverie_dreams.search.moves import LEAST_SCALE, MOST_SCALE, Move, draw_seed
from reverie_dreams.search.search import Search

SEEDS = 4
#: Multiples of the guidance scale, the middle first; how far they spread follows the temperature.
SPREAD = (0.0, -1.0, 1.0)


class Grid:
    """The axes, fastest first: modifiers, guidance scale, seed."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """See `Strategy.propose`."""
        del rng  # a grid has no chance in it but its seeds
        extras = self._extras(search)
        scales = self._scales(search)
        rest, extra = divmod(search.index, len(extras))
        rest, scale = divmod(rest, len(scales))
        page, seed = divmod(rest, SEEDS)
        return Move(
            seed=draw_seed(search.rng("grid", search.epoch, page, seed)),
            modifiers=extras[extra],
            guidance_scale=scales[scale],
            mutation=f"page {page}, seed {seed}, scale {scale}, modifier {extra}",
        )

    @staticmethod
    def _extras(search: Search) -> list[tuple[str, ...]]:
        """None, and one of each of so many groups as the temperature allows."""
        groups = sorted(search.modifiers.groups)
        count = round(len(groups) * search.temperature)
        return [(), *((search.modifiers.groups[name][0],) for name in groups[:count])]

    @staticmethod
    def _scales(search: Search) -> list[float | None]:
        scale = search.base.guidance_scale
        if scale is None:
            return [None]
        spread = 0.1 + 0.5 * search.temperature
        moved = (scale * (1 + step * spread) for step in SPREAD)
        return list(dict.fromkeys(round(min(MOST_SCALE, max(LEAST_SCALE, value)), 3) for value in moved))
