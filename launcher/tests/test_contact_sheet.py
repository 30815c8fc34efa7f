"""Contact sheets: every picture is on it, large ones made smaller, in their order."""

from __future__ import annotations

import io

from PIL import Image

from reverie_launcher.contact_sheet import GAP_PX, SIDE_PX, contact_sheet


def png(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_stand_in_rows_in_their_order_whatever_their_size() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sizes = [(64, 64), (512, 256), (8, 16)]
    content = contact_sheet(
        [(png(c, s), f"#{i}") for i, (c, s) in enumerate(zip(colours, sizes, strict=True))]
    )
    sheet = Image.open(io.BytesIO(content))
    first, step = GAP_PX + 8, SIDE_PX + GAP_PX
    assert sheet.getpixel((first, first)) == colours[0]
    assert sheet.getpixel((first + step, first)) == colours[1]
    assert sheet.size[0] == 2 * step + GAP_PX
    assert sheet.size[1] > 2 * step


def test_a_sheet_of_nothing_is_a_picture_too() -> None:
    assert Image.open(io.BytesIO(contact_sheet([]))).size[0] > 0
