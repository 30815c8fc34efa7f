"""What counts as the same picture: a difference hash of the light, and mean colours of nine fields."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

#: Bits of 64 that may differ, and the largest difference of a field's mean colour, of 255.
NEAR_BITS: Final = 4
NEAR_COLOUR: Final = 12
_BITS_CHARS: Final = 16


def perceptual_hash(picture: Image.Image) -> str:
    """64 bits and 27 bytes, in hexadecimal."""
    light = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    # Flat areas differ by noise alone; a difference counts from two levels on.
    bits = np.packbits((light[:, 1:] - light[:, :-1] > 1).ravel())
    fields = np.asarray(picture.convert("RGB").resize((3, 3), Image.Resampling.BOX), np.uint8)
    return (bits.tobytes() + fields.tobytes()).hex()


def alike(one: str, other: str) -> bool:
    """Whether two hashes are those of near duplicates."""
    if not one or len(one) != len(other):
        return False
    if (int(one[:_BITS_CHARS], 16) ^ int(other[:_BITS_CHARS], 16)).bit_count() > NEAR_BITS:
        return False
    fields = (np.frombuffer(bytes.fromhex(text[_BITS_CHARS:]), np.uint8).astype(int) for text in (one, other))
    return bool(np.max(np.abs(next(fields) - next(fields))) <= NEAR_COLOUR)


def small_colours(picture: Image.Image) -> np.ndarray:
    """[48]: what a picture looks like where no scorer can say it: 4x4 fields of colour around their mean."""
    fields = np.asarray(picture.convert("RGB").resize((4, 4), Image.Resampling.BOX), float).ravel()
    return np.asarray(fields - 127.5)
