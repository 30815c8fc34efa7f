"""What a scorer is.

A scorer is made once (`factory(options)`, options being the text that follows its name in `dreams.scorers`), in the
thread that it will be used in.  Its raw figures may have any range: `calibration` turns them into 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image


class Scorer(Protocol):
    """How good pictures are, the higher the better; found in the entry-point group `reverie.scorers`."""

    def raw(self, pictures: Sequence[Image.Image], prompt: str) -> list[float]:
        """One figure for each RGB picture, judged as an answer to `prompt`."""


@runtime_checkable
class Looking(Protocol):
    """A scorer that can also say what pictures look like."""

    def looks(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """[N, D]: directions in a space where alike pictures lie close."""


Factory = Callable[[str], Scorer]
