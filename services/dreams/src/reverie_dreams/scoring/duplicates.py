"""What counts as the same picture: the mean colours of 8x8 fields, which hardly move when only an outline trembles.

Measured on the built-in model (mean difference of a channel, of 255): a move of the noise by 0.05 makes 0.1 to 0.7,
one by 0.25 0.3 to 4, another seed 0.8 to 20; the less a model varies its pictures, the more of them are the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

#: Fields on each side.
FIELDS: Final = 8
#: Mean difference of a channel, of 255, up to which pictures are near duplicates.
NEAR: Final = 1.0


def perceptual_hash(picture: Image.Image) -> str:
    """192 bytes, in hexadecimal."""
    fields = picture.convert("RGB").resize((FIELDS, FIELDS), Image.Resampling.BOX)
    return bytes(fields.tobytes()).hex()


def alike(one: str, other: str) -> bool:
    """Whether two hashes are those of near duplicates."""
    if not one or len(one) != len(other):
        return False
    first, second = (np.frombuffer(bytes.fromhex(text), np.uint8).astype(int) for text in (one, other))
    return bool(np.mean(np.abs(first - second)) <= NEAR)


def small_colours(picture: Image.Image) -> np.ndarray:
    """[48]: what a picture looks like where no scorer can say it: 4x4 fields of colour around their mean."""
    fields = np.asarray(picture.convert("RGB").resize((4, 4), Image.Resampling.BOX), float).ravel()
    return np.asarray(fields - 127.5)
