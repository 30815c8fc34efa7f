"""Super-resolution in tiles: memory stays that of one tile beside the result, and no tile's edge can be seen."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import groupby
from math import isqrt
from operator import itemgetter

import torch

from reverie_inference.upscalers.network import Upscaler

#: Sides of tiles, in pixels of the input; what lies between depends on the network's width.
MAX_TILE_PX, MIN_TILE_PX = 512, 64
#: What a tile sees beyond its own edge, at most.  A network that reaches further makes tiles that differ a little
#: where they meet, so there they fade into each other.
MAX_MARGIN_PX, FADE_PX = 32, 8
#: What the work on one tile may take, in bytes.
_CPU_BYTES, _ACCELERATOR_BYTES = 1 << 30, 4 << 30

Tile = tuple[slice, slice]  # rows, columns


def tile_side(upscaler: Upscaler) -> int:
    """The side of this network's tiles: such that the work on one fits into memory."""
    budget = _CPU_BYTES if upscaler.device.type == "cpu" else _ACCELERATOR_BYTES
    fitting = isqrt(budget // max(1, upscaler.bytes_per_pixel)) - 2 * margin_of(upscaler)
    return max(MIN_TILE_PX, min(MAX_TILE_PX, fitting))


def margin_of(upscaler: Upscaler) -> int:
    """What a tile of this network sees beyond its own edge, in pixels."""
    return min(upscaler.reach, MAX_MARGIN_PX)


def tiles_of(upscaler: Upscaler, height: int, width: int, *, tile: int | None = None) -> list[Tile]:
    """The tiles of a picture, row by row, in pixels of the input."""
    side = tile or tile_side(upscaler)
    side = max(upscaler.multiple, side - side % upscaler.multiple)
    return [(rows, columns) for rows in _spans(height, side) for columns in _spans(width, side)]


def upscale(
    upscaler: Upscaler, image: torch.Tensor, *, tile: int | None = None
) -> Generator[None, None, torch.Tensor]:
    """Enlarge [N, 3, H, W], single precision of 0..1 or bytes, one tile at a time; the result is of the same kind.

    Yields after each tile, so that a job can leave between two of them; the generator's value is the result.
    """
    count, channels, height, width = image.shape
    scale = upscaler.scale
    fade = FADE_PX if upscaler.reach > margin_of(upscaler) else 0
    result = image.new_empty(count, channels, height * scale, width * scale)
    for rows, tiles in groupby(tiles_of(upscaler, height, width, tile=tile), key=itemgetter(0)):
        # Tiles fade into each other along a strip, then strips: what lies in a corner is a mean of all four.
        put_rows = _widened(rows, fade, height, 1)
        strip = image.new_empty(count, channels, (put_rows.stop - put_rows.start) * scale, width * scale)
        for _, columns in tiles:
            put_columns = _widened(columns, fade, width, 1)
            enlarged = _enlarged(upscaler, image, (put_rows, put_columns))
            _fade_in(strip, enlarged, put_columns, shared=columns.start - put_columns.start, scale=scale)
            yield
        # The same along the other axis, by turning both.
        shared = rows.start - put_rows.start
        _fade_in(result.mT, strip.mT, put_rows, shared=shared, scale=scale)
    return result


def _enlarged(upscaler: Upscaler, image: torch.Tensor, wanted: Tile) -> torch.Tensor:
    """A part of the enlarged picture, computed with its surroundings; on the network's device, of 0..1."""
    margin, scale = margin_of(upscaler), upscaler.scale
    rows, columns = wanted
    seen_rows = _widened(rows, margin, image.shape[2], upscaler.multiple)
    seen_columns = _widened(columns, margin, image.shape[3], upscaler.multiple)
    # To the network's device as they are: bytes are a quarter of the way.
    seen = _as_float(image[:, :, seen_rows, seen_columns].to(upscaler.device))
    enlarged = upscaler.upscale(seen)
    return enlarged[:, :, _within(rows, seen_rows, scale), _within(columns, seen_columns, scale)]


def _fade_in(whole: torch.Tensor, part: torch.Tensor, span: slice, *, shared: int, scale: int) -> None:
    """Put a part into its columns of the whole; over twice `shared` of them it fades in over what is there."""
    place = whole[:, :, :, span.start * scale : span.stop * scale]
    band = 2 * shared * scale
    if band:
        weight = ((torch.arange(place.shape[3], device=part.device) + 0.5) / band).clamp(max=1)
        before = _as_float(place.to(part.device))
        part = _as_float(part)
        part = torch.where(weight < 1, before + (part - before) * weight, part)
    if whole.dtype == torch.uint8 and part.dtype != torch.uint8:
        part = part.mul(255).round_().to(torch.uint8)
    place.copy_(part)


def _as_float(values: torch.Tensor) -> torch.Tensor:
    return values.float() / 255 if values.dtype == torch.uint8 else values


def _spans(length: int, side: int) -> Iterator[slice]:
    for start in range(0, length, side):
        yield slice(start, min(start + side, length))


def _widened(span: slice, by: int, length: int, multiple: int) -> slice:
    """The span and what lies around it within the picture, beginning at a whole multiple."""
    start = max(0, span.start - by)
    return slice(start - start % multiple, min(length, span.stop + by))


def _within(span: slice, outer: slice, scale: int) -> slice:
    return slice((span.start - outer.start) * scale, (span.stop - outer.start) * scale)
