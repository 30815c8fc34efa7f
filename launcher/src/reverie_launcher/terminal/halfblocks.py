"""A picture as coloured half blocks: two pixels to a character, on any terminal with true colour."""

from __future__ import annotations

import io

from rich.color import Color
from rich.style import Style
from rich.text import Text


def half_blocks(picture: bytes, *, columns: int, rows: int) -> Text | None:
    """An encoded picture within that many characters, keeping its shape; None if it cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(picture)) as image:
            scale = min(columns / image.width, rows * 2 / image.height)
            width = max(1, round(image.width * scale))
            height = max(2, round(image.height * scale / 2) * 2)
            pixels = image.convert("RGB").resize((width, height), Image.Resampling.BOX).load()
    except (UnidentifiedImageError, OSError, ValueError):
        return None
    if pixels is None:
        return None
    text = Text()
    for y in range(0, height, 2):
        if y:
            text.append("\n")
        for x in range(width):
            upper, lower = Color.from_rgb(*pixels[x, y]), Color.from_rgb(*pixels[x, y + 1])
            text.append("▀", Style(color=upper, bgcolor=lower))
    return text
