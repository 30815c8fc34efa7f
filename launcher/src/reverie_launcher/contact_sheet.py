"""Many pictures on one: rows of thumbnails, each with a line below it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil, sqrt

from PIL import Image, ImageDraw

SIDE_PX, GAP_PX, LINE_PX = 192, 12, 18
BACKGROUND, INK = (24, 24, 27), (212, 212, 216)
MOST = 100


def contact_sheet(pictures: Sequence[tuple[bytes, str]]) -> bytes:
    """A PNG of encoded pictures with their captions, in their order, about as wide as high; at most `MOST`."""
    shown = pictures[:MOST]
    columns = max(1, ceil(sqrt(len(shown))))
    rows = max(1, ceil(len(shown) / columns))
    cell, height = SIDE_PX + GAP_PX, SIDE_PX + LINE_PX + GAP_PX
    sheet = Image.new("RGB", (columns * cell + GAP_PX, rows * height + GAP_PX), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (content, caption) in enumerate(shown):
        left, top = GAP_PX + index % columns * cell, GAP_PX + index // columns * height
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        smaller = picture.width > SIDE_PX or picture.height > SIDE_PX
        way = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
        scale = SIDE_PX / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        sheet.paste(picture.resize(size, way), (left, top))
        draw.text((left, top + SIDE_PX + 2), caption, fill=INK)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
