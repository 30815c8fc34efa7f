"""How a picture of the requested size comes about: what the network draws, and what super-resolution adds."""

from __future__ import annotations

from collections.abc import Collection
from math import prod, sqrt

import msgspec

from reverie_inference.models.loaded import Size
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.sizes import SUPERRES_SCALE, enlarged

#: A side below this part of the native one leaves the network too little to draw on.
_LEAST_SIDE = 1 / 4


class PicturePlan(msgspec.Struct, frozen=True):
    """From the network's size to the final one; sizes are (width, height) in pixels.

    The network draws `drawn`; super-resolution by each of `scales` brings it to `picture` or beyond, and Lanczos
    to exactly `picture`; then `superres_passes` passes by `superres_scale`, which the request asked for, make
    `final`.
    """

    drawn: Size
    scales: tuple[int, ...]
    picture: Size
    superres_passes: int
    final: Size
    superres_scale: int = SUPERRES_SCALE


def plan_picture(
    requested: Size,
    native: Size,
    *,
    scales: Collection[int] = (),
    native_only: bool = False,
    multiple: int = 8,
    superres: bool = False,
    magnitude: int = 2,
) -> PicturePlan:
    """Plan a picture of `requested` pixels.

    `native_only` models draw about `native` pixels whatever is asked, because beyond it they repeat themselves;
    others draw the requested size.  `scales` are the factors that there is super-resolution for, `multiple` is what
    the drawn sides must be divisible by.  ReverieError `superres_disabled` where there is no super-resolution, and
    what `enlarged` says of the size.
    """
    passes = magnitude if superres else 0
    scale = pass_scale(scales)
    if passes and scale is None:
        raise ReverieError(ErrorCode.SUPERRES_DISABLED, "This worker has no super-resolution model.")
    scale = scale or SUPERRES_SCALE
    final = enlarged(requested, passes, field="superres_magnitude", scale=scale)
    larger = requested[0] * requested[1] > native[0] * native[1] or max(requested) > max(native)
    if not (native_only and larger):
        drawn = (_to_multiple(requested[0], multiple), _to_multiple(requested[1], multiple))
        return PicturePlan(drawn, (), requested, passes, final, scale)
    drawn = _fit_native(requested, native, multiple)
    return PicturePlan(drawn, _scales_up(drawn, requested, scales), requested, passes, final, scale)


def pass_scale(scales: Collection[int]) -> int | None:
    """What a pass of super-resolution enlarges by: two if there is a network for it, else the least there is."""
    return SUPERRES_SCALE if SUPERRES_SCALE in scales else min(scales, default=None)


def _fit_native(requested: Size, native: Size, multiple: int) -> Size:
    """The requested shape at about the native area."""
    width, height = requested
    shrink = sqrt(native[0] * native[1] / (width * height))
    least = round(min(native) * _LEAST_SIDE)
    return (
        _to_multiple(max(least, width * shrink), multiple),
        _to_multiple(max(least, height * shrink), multiple),
    )


def _scales_up(drawn: Size, target: Size, scales: Collection[int]) -> tuple[int, ...]:
    """Passes that reach the target on both sides, as few as do."""
    needed = max(target[0] / drawn[0], target[1] / drawn[1])
    steps: list[int] = []
    while scales and prod(steps) < needed:
        missing = needed / prod(steps)
        enough = [scale for scale in scales if scale >= missing]
        steps.append(min(enough) if enough else max(scales))
    return tuple(steps)


def _to_multiple(side: float, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)
