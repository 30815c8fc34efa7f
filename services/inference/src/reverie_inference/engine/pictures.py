"""The pictures that come with a job."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Pictures:
    """As they are: upright, RGB or RGBA.  `init` is also the one of a job that is all super-resolution."""

    init: Image.Image | None = None
    mask: Image.Image | None = None


NO_PICTURES = Pictures()
