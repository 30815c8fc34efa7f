"""What a strategy is.

A strategy is a class without state of its own that can be made without arguments.  `propose` looks at the search
(`temperature`, `index`, `parents()`, `judged`, `modifiers`, `base`, `rng(...)`) and draws from `rng`; the same
search and the same numbers must give the same move, or a session cannot be replayed.
"""

from __future__ import annotations

import random
from typing import Protocol

from reverie_dreams.search.candidate import Candidate
from reverie_dreams.search.moves import Move
from reverie_dreams.search.search import Search


class Strategy(Protocol):
    """How a session walks from candidate to candidate; found in the entry-point group `reverie.strategies`."""

    def propose(self, search: Search, rng: random.Random) -> Move:
        """The next candidate."""


def move_of(candidate: Candidate) -> Move:
    """The move that makes a candidate again: where its children start from."""
    return Move(
        seed=candidate.seed,
        variations=candidate.params.variations,
        modifiers=candidate.modifiers,
        guidance_scale=candidate.params.guidance_scale,
    )
