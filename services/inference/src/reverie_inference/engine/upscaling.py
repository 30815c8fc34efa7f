"""Super-resolution in tiles: memory stays that of one tile beside the result, and no tile's edge can be seen."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from math import isqrt

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
    scale = upscaler.scale
    count, channels, height, width = image.shape
    result = image.new_empty(count, channels, height * scale, width * scale)
    for rows, columns in tiles_of(upscaler, height, width, tile=tile):
        _enlarge(upscaler, image, result, rows, columns)
        yield
    return result


def _enlarge(
    upscaler: Upscaler, image: torch.Tensor, result: torch.Tensor, rows: slice, columns: slice
) -> None:
    """Enlarge one tile into its place in the result."""
    margin, scale = margin_of(upscaler), upscaler.scale
    fade = FADE_PX if upscaler.reach > margin else 0
    seen_rows, seen_columns = (
        _widened(span, margin, length, upscaler.multiple)
        for span, length in zip((rows, columns), image.shape[2:], strict=True)
    )
    # To the network's device as they are: bytes are a quarter of the way.
    enlarged = upscaler.upscale(_as_float(image[:, :, seen_rows, seen_columns].to(upscaler.device)))
    put_rows, put_columns = (
        _widened(span, fade, length, 1)
        for span, length in zip((rows, columns), image.shape[2:], strict=True)
    )
    part = enlarged[:, :, _within(put_rows, seen_rows, scale), _within(put_columns, seen_columns, scale)]
    place = result[:, :, _times(put_rows, scale), _times(put_columns, scale)]
    if fade and (rows.start or columns.start):
        weight = _ramp(rows, put_rows, scale)[:, None] * _ramp(columns, put_columns, scale)
        weight = weight.to(part.device)
        before = torch.where(weight < 1, _as_float(place.to(part.device)), 0)
        part = before + (part - before) * weight
    place.copy_(part.mul(255).round_().to(torch.uint8) if image.dtype == torch.uint8 else part)


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


def _times(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)


def _ramp(span: slice, put: slice, scale: int) -> torch.Tensor:
    """How much of the new tile shows along one axis: from nothing to all over the band that it shares with the last.

    At the other end all of it: the next tile fades over it in turn.
    """
    places = torch.arange((put.stop - put.start) * scale)
    shared = 2 * (span.start - put.start) * scale
    return ((places + 0.5) / shared).clamp(max=1) if shared else torch.ones(len(places))
