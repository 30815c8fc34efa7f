"""Super-resolution of decoded pictures, in tiles where they are large."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

import torch

TILE_PX = 512
#: What a tile sees beyond its own edge; above the reach of the network, so tiles join without a seam.
MARGIN_PX = 16


class Upscaler(Protocol):
    """A super-resolution network for one fixed factor."""

    scale: int

    def upscale(self, image: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] of 0..1 to [N, 3, scale*H, scale*W] of 0..1."""


def upscale(
    upscaler: Upscaler, image: torch.Tensor, *, tile: int = TILE_PX, margin: int = MARGIN_PX
) -> Generator[None, None, torch.Tensor]:
    """Enlarge [1, 3, H, W] of 0..1, one tile at a time; memory stays that of one tile beside the result.

    Yields after each tile, so that a job can leave between two of them; the generator's value is the result.
    """
    _, _, height, width = image.shape
    scale = upscaler.scale
    if height <= tile and width <= tile:
        return upscaler.upscale(image)
    result = image.new_empty(1, 3, height * scale, width * scale)
    for top, bottom in _spans(height, tile):
        for left, right in _spans(width, tile):
            first_row, first_column = max(0, top - margin), max(0, left - margin)
            seen = image[:, :, first_row : bottom + margin, first_column : right + margin]
            enlarged = upscaler.upscale(seen)
            rows = slice((top - first_row) * scale, (bottom - first_row) * scale)
            columns = slice((left - first_column) * scale, (right - first_column) * scale)
            place = result[:, :, top * scale : bottom * scale, left * scale : right * scale]
            place.copy_(enlarged[:, :, rows, columns])
            yield
    return result


def _spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, tile):
        yield start, min(start + tile, length)
