"""Pictures and latents as the fake's nodes hand them on: a size, a count and a colour, real only when written."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo


@dataclass(frozen=True)
class Picture:
    """An IMAGE (batch) of one colour."""

    width: int
    height: int
    count: int = 1
    #: 0xRRGGBB
    colour: int = 0

    def changed(self, **what: Any) -> Picture:
        """The same with some fields replaced."""
        return replace(self, **what)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Its colour."""
        return self.colour >> 16 & 255, self.colour >> 8 & 255, self.colour & 255


def tint(*parts: object) -> int:
    """A colour that follows from values such as a seed and a text."""
    return int.from_bytes(hashlib.blake2s(repr(parts).encode(), digest_size=3).digest(), "big")


def png(picture: Picture, texts: dict[str, str]) -> bytes:
    """One picture as a PNG file with text chunks."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    out = io.BytesIO()
    Image.new("RGB", (picture.width, picture.height), picture.rgb).save(
        out, "PNG", pnginfo=info, compress_level=1
    )
    return out.getvalue()


@lru_cache(maxsize=64)
def preview(size: int, colour: int, image_format: str) -> bytes:
    """A square preview of one colour as JPEG or PNG."""
    return encoded(Image.new("RGB", (size, size), Picture(size, size, colour=colour).rgb), image_format)


@lru_cache(maxsize=4)
def noise(size: int, image_format: str) -> bytes:
    """A square preview that does not compress: of 512 px, 290 KB as JPEG."""
    return encoded(Image.effect_noise((size, size), 200).convert("RGB"), image_format)


def encoded(image: Image.Image, image_format: str) -> bytes:
    """A picture's file."""
    out = io.BytesIO()
    image.save(out, image_format)
    return out.getvalue()


def opened(data: bytes) -> Picture:
    """A file that was uploaded; OSError if it is no picture."""
    with Image.open(io.BytesIO(data)) as image:
        return Picture(image.width, image.height, colour=tint(data))


def converted(data: bytes, image_format: str) -> bytes:
    """A picture in another format, as `/view?preview=` gives it."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").save(out, image_format)
    return out.getvalue()
