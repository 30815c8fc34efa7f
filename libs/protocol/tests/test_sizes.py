"""Which picture sizes are allowed."""

from __future__ import annotations

import pytest

from reverie_protocol.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("64x64", (64, 64)), ("512x768", (512, 768)), ("4096x4096", (4096, 4096)), ("0512x512", (512, 512))],
)
def test_a_size_is_width_and_height_in_pixels(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "WIDTHxHEIGHT"),
        ("512", "WIDTHxHEIGHT"),
        ("512x512x512", "WIDTHxHEIGHT"),
        ("512x512\n", "WIDTHxHEIGHT"),
        ("５１２x512", "WIDTHxHEIGHT"),
        ("63x64", "64..4096 pixels; the width is 63"),
        ("64x4104", "64..4096 pixels; the height is 4104"),
        ("513x512", "multiple of 8 pixels; the width is 513"),
        ("9" * 10_000 + "x512", "64..4096"),
    ],
)
def test_another_size_is_refused_with_what_is_allowed(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_size(text)
