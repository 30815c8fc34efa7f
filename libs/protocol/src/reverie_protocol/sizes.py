"""Picture sizes as text: `WIDTHxHEIGHT` in pixels.  The only place that knows which sizes are allowed."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from reverie_protocol.errors import ErrorCode, FieldError, ReverieError

MIN_SIDE_PX, MAX_SIDE_PX, SIDE_MULTIPLE_PX = 64, 4096, 8
#: Largest side of a result, passes of super-resolution included, and what each pass multiplies a side by.
MAX_RESULT_SIDE_PX, SUPERRES_SCALE = 8192, 2
SIZE_PATTERN = r"^[0-9]+x[0-9]+$"

_SIZE = re.compile(r"([0-9]+)x([0-9]+)")
_MAX_DIGITS = 9  # far beyond any size, and short enough to convert


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels; ValueError with one sentence if `text` is no allowed size."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as 512x512")
    if max(map(len, match.groups())) > _MAX_DIGITS:
        raise ValueError(f"each side must be {MIN_SIDE_PX}..{MAX_SIDE_PX} pixels")
    width, height = (int(side) for side in match.groups())
    for name, side in (("width", width), ("height", height)):
        if not MIN_SIDE_PX <= side <= MAX_SIDE_PX:
            raise ValueError(f"each side must be {MIN_SIDE_PX}..{MAX_SIDE_PX} pixels; the {name} is {side}")
        if side % SIDE_MULTIPLE_PX:
            raise ValueError(
                f"each side must be a multiple of {SIDE_MULTIPLE_PX} pixels; the {name} is {side}"
            )
    return width, height


def enlarged(
    size: tuple[int, int], passes: int, *, field: str, scale: int = SUPERRES_SCALE
) -> tuple[int, int]:
    """Width and height after passes of super-resolution.

    ReverieError `invalid_field`, about the field that says how many, for more than `MAX_RESULT_SIDE_PX` a side.
    """
    width, height = (side * scale**passes for side in size)
    if max(width, height) <= MAX_RESULT_SIDE_PX:
        return width, height
    message = (
        f"makes a picture of {width}x{height} pixels from {size[0]}x{size[1]}; "
        f"at most {MAX_RESULT_SIDE_PX} a side are made"
    )
    fields = [FieldError((field,), message, "out_of_range")]
    raise ReverieError(ErrorCode.INVALID_FIELD, f"{field}: {message}", fields=fields)


Size = Annotated[
    str,
    Meta(
        pattern=SIZE_PATTERN,
        max_length=9,
        description="WIDTHxHEIGHT in pixels; each side 64..4096 and a multiple of 8",
        examples=["512x512"],
        extra={"check": parse_size},
    ),
]
