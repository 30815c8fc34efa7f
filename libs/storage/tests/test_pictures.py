"""Pictures of strangers: opened as they were meant, or refused with a reason, at little cost to this process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import struct
import zipfile
import zlib
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageCms

from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_storage.memory import MemoryStorage
from reverie_storage.pictures import Limits, Picture, PictureRefused, Pictures, read_picture

ORIENTATION = 0x0112
LEFT, RIGHT = (250, 10, 10), (10, 10, 250)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(mode: str = "RGB") -> Image.Image:
    """Wide, red on the left, blue on the right."""
    image = Image.new("RGB", (64, 32), RIGHT)
    image.paste(LEFT, (0, 0, 32, 32))
    return image.convert(mode)


def noise(width: int = 300, height: int = 200) -> Image.Image:
    return Image.frombytes("RGB", (width, height), os.urandom(width * height * 3))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int, height: int) -> bytes:
    """A black PNG of a few kilobytes; `height` in hundreds."""
    block = zlib.compressobj(9, wbits=-15)
    # What a full flush ends stands for itself, so that a hundred rows are packed once for all.
    hundred = block.compress(bytes(100 * (1 + 3 * width))) + block.flush(zlib.Z_FULL_FLUSH)
    size = height * (1 + 3 * width)
    checksum = (size % 65521) << 16 | 1
    packed = b"\x78\x9c" + hundred * (height // 100) + b"\x03\x00" + struct.pack(">I", checksum)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    png = encoded(halves(), "PNG")
    at = png.index(b"IDAT") - 4
    packed = zlib.compress(bytes(20_000_000), 9)
    return png[:at] + chunk(b"zTXt", b"Comment\0\0" + packed) + png[at:]


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("bomb", bytes(20_000_000))
    return buffer.getvalue()


async def inspected(tmp_path: Path, content: bytes, limits: Limits | None = None):
    path = tmp_path / "picture"
    path.write_bytes(content)
    return await Pictures(limits).inspect(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
async def test_a_sound_picture_is_told_by_its_bytes(tmp_path: Path, kind: str, options: dict) -> None:
    content = encoded(noise(), kind, **options)
    found = await inspected(tmp_path, content)
    assert (found.type, found.width, found.height) == (f"image/{kind.lower()}", 300, 200)
    assert found.length == len(content)


TOO_LARGE, WRONG_TYPE = ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.UNSUPPORTED_MEDIA_TYPE
REFUSED = {
    "a 200-megapixel bomb": (lambda: png_bomb(20_000, 10_000), TOO_LARGE, "200.0 megapixels"),
    "a bomb in a comment": (text_bomb, WRONG_TYPE, "cannot be decoded"),
    "an archive": (archive, WRONG_TYPE, "no picture"),
    "a page": (lambda: b"<html><svg/></html>", WRONG_TYPE, "no picture"),
    "a GIF": (lambda: encoded(halves("P"), "GIF"), WRONG_TYPE, "PNG, JPEG and WebP"),
    "a JPEG cut in its data": (lambda: encoded(noise(), "JPEG")[:9000], WRONG_TYPE, "truncated"),
    "a JPEG without its end": (lambda: encoded(noise(), "JPEG")[:-2], WRONG_TYPE, "truncated"),
    "a JPEG of three bytes": (lambda: b"\xff\xd8\xff", WRONG_TYPE, "truncated"),
    "a PNG cut in its data": (lambda: encoded(noise(), "PNG")[:9000], WRONG_TYPE, "truncated"),
    "a PNG signature alone": (lambda: b"\x89PNG\r\n\x1a\n", WRONG_TYPE, "truncated"),
    "a WebP cut in its data": (lambda: encoded(noise(), "WEBP")[:900], WRONG_TYPE, "truncated"),
    "PNG and archive": (lambda: encoded(halves(), "PNG") + archive(), WRONG_TYPE, "more than a picture"),
    "JPEG and page": (lambda: encoded(halves(), "JPEG") + b"<script>", WRONG_TYPE, "more than a picture"),
    "WebP and archive": (lambda: encoded(halves(), "WEBP") + archive(), WRONG_TYPE, "more than a picture"),
    "archive before a picture": (lambda: archive() + encoded(halves(), "PNG"), WRONG_TYPE, "no picture"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_sound_picture_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    make, code, reason = REFUSED[name]
    with pytest.raises(PictureRefused, match=reason) as refused:
        await inspected(tmp_path, make())
    assert refused.value.code == code
    assert str(tmp_path) not in refused.value.message


async def test_a_damaged_byte_anywhere_never_brings_us_down(tmp_path: Path) -> None:
    content = encoded(noise(40, 30), "PNG")
    for at in range(0, len(content), len(content) // 6):
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        try:
            await inspected(tmp_path, bytes(damaged))
        except PictureRefused:
            continue


@pytest.mark.parametrize("behind", [encoded(halves(), "JPEG"), bytes(999), b"..SEFH..\1\0\0\0SEFT"])
async def test_what_cameras_write_behind_a_picture_is_left_out(tmp_path: Path, behind: bytes) -> None:
    first = encoded(noise(), "JPEG")
    assert (await inspected(tmp_path, first + behind)).length == len(first)


async def test_a_decoder_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(PictureRefused, match="memory or time"):
        await inspected(tmp_path, encoded(noise(), "PNG"), Limits(wall_s=0.001))


async def test_a_decoder_that_takes_too_much_memory_is_stopped(tmp_path: Path) -> None:
    limits = Limits(max_pixels=16_000_000)
    tight = Limits(max_pixels=16_000_000, base_bytes=(64 << 20) - (limits.memory_bytes - limits.base_bytes))
    with pytest.raises(PictureRefused, match="memory"):
        await inspected(tmp_path, png_bomb(4000, 4000), tight)
    assert (await inspected(tmp_path, png_bomb(4000, 4000), limits)).width == 4000


async def test_a_bomb_costs_this_process_nothing(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(png_bomb(5000, 5000))  # within the limit: 75 MB of pixels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (await Pictures().inspect(bomb)).width == 5000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kilobytes


async def test_too_many_at_once_are_asked_to_come_back(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(halves(), "PNG"))
    pictures = Pictures(at_once=1, waiting=2)
    answers = await asyncio.gather(*(pictures.inspect(path) for _ in range(4)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ReverieError)]
    assert [error.code for error in refused] == [ErrorCode.RATE_LIMITED] * 2
    assert refused[0].retry_after


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    storage = MemoryStorage()
    key = await storage.put(encoded(halves(), "JPEG", exif=exif, quality=95), content_type="image/jpeg")
    picture = await read_picture(storage, key)
    sideways = orientation >= 5
    assert (picture.mode, picture.width, picture.height) == ("RGB", *((32, 64) if sideways else (64, 32)))
    image = Image.frombytes(picture.mode, (picture.width, picture.height), picture.pixels)
    red_first = image.getpixel((4, 4))[0] > 128
    assert red_first == (orientation in (1, 4, 5, 6))


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (Image.new("RGBA", (9, 7), (10, 20, 30, 40)), "RGBA", (10, 20, 30, 40)),
        (Image.new("LA", (9, 7), (10, 40)), "RGBA", (10, 10, 10, 40)),
        (Image.new("L", (9, 7), 77), "RGB", (77, 77, 77)),
        (Image.new("1", (9, 7), 1), "RGB", (255, 255, 255)),
        (Image.new("I;16", (9, 7), 0x8000), "RGB", (128, 128, 128)),
        (Image.new("RGB", (9, 7), (1, 2, 3)).convert("P"), "RGB", None),
    ],
    ids=["RGBA", "LA", "L", "1", "I;16", "P"],
)
async def test_every_kind_of_pixel_becomes_rgb_or_rgba(image: Image.Image, mode: str, pixel: object) -> None:
    storage = MemoryStorage()
    key = await storage.put(encoded(image, "PNG"), content_type="image/png")
    picture = await read_picture(storage, key)
    assert (picture.mode, picture.width, picture.height) == (mode, 9, 7)
    assert len(picture.pixels) == 9 * 7 * len(mode)
    if pixel is not None:
        assert tuple(picture.pixels[: len(mode)]) == pixel


def icc_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A display's ICC profile of version 2 with these tags."""
    tags = {b"desc": b"desc\0\0\0\0\0\0\0\x05test\0" + bytes(79), b"wtpt": xyz(0.9642, 1.0, 0.8249)} | tags
    table, content = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", start + len(content), len(value))
        content += padded
    size = start + len(content)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + table + content


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + bytes(2)


def swapped() -> bytes:
    """A profile whose red is what sRGB calls blue."""
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma(2.2))
    primaries = {
        b"rXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.4361, 0.2225, 0.0139),
    }
    return icc_profile(b"RGB ", curves | primaries)


async def seen(image: Image.Image, kind: str, **options: object) -> Picture:
    storage = MemoryStorage()
    content_type = f"image/{kind.lower()}"
    key = await storage.put(encoded(image, kind, **options), content_type=content_type)
    return await read_picture(storage, key)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_colours_are_those_that_the_profile_says(kind: str) -> None:
    exact = (
        {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    )
    left = (await seen(halves(), kind, icc_profile=swapped(), **exact)).pixels[:3]
    assert left[2] > 200 > 60 > left[0]


async def test_alpha_stays_as_it_is_beside_colours_that_change() -> None:
    image = halves("RGBA")
    image.putalpha(77)
    picture = await seen(image, "PNG", icc_profile=swapped())
    assert picture.mode == "RGBA"
    red, _, blue, alpha = picture.pixels[:4]
    assert blue > 200 > 60 > red
    assert alpha == 77
    palette = await seen(halves("P"), "PNG", icc_profile=swapped())
    assert palette.pixels[2] > 200 > 60 > palette.pixels[0]


async def test_grey_is_seen_through_its_own_profile_and_through_one_for_colours() -> None:
    grey = Image.new("L", (16, 16), 128)
    linear = icc_profile(b"GRAY", {b"kTRC": gamma(1.0)})
    assert abs((await seen(grey, "PNG", icc_profile=linear)).pixels[0] - 188) <= 1
    assert abs((await seen(grey, "PNG", icc_profile=swapped())).pixels[0] - 128) <= 2
    grey.putalpha(99)
    clear = await seen(grey, "PNG", icc_profile=linear)
    assert (clear.mode, clear.pixels[3]) == ("RGBA", 99)
    assert abs(clear.pixels[0] - 188) <= 1


async def test_a_colour_that_stands_for_transparency_is_found_under_a_profile() -> None:
    picture = await seen(halves(), "PNG", icc_profile=swapped(), transparency=LEFT)
    assert picture.mode == "RGBA"
    assert picture.pixels[3] == 0
    right = picture.pixels[-4:]
    assert right[3] == 255
    assert right[0] > 200 > 60 > right[2]


async def test_srgb_changes_no_bit() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = noise()
    assert (await seen(image, "PNG", icc_profile=profile)).pixels == image.tobytes()


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile at all",
        swapped()[:200],
        swapped()[:128] + b"\xff" * 2000,
        swapped().replace(b"curv\0\0\0\0\0\0\0\x01", b"curv\0\0\0\0\x7f\xff\xff\xff"),
        icc_profile(b"CMYK", {}),
        icc_profile(b"GRAY", {b"kTRC": gamma(1.0)}),
    ],
    ids=["text", "cut off", "no end of tags", "an endless curve", "of other pixels", "of grey ones"],
)
async def test_a_hostile_or_misplaced_profile_leaves_the_pixels_as_they_stand(profile: bytes) -> None:
    assert (await seen(halves(), "PNG", icc_profile=profile)).pixels[:3] == bytes(LEFT)
    assert (await seen(halves("CMYK"), "JPEG", icc_profile=profile)).mode == "RGB"


@pytest.mark.parametrize("seed", range(8))
async def test_a_damaged_profile_never_brings_us_down(seed: int) -> None:
    random = Random(seed)
    profile = bytearray(swapped())
    for _ in range(20):
        profile[random.randrange(len(profile))] = random.randrange(256)
    with contextlib.suppress(PictureRefused):
        assert (await seen(halves(), "PNG", icc_profile=bytes(profile))).width == 64


async def test_a_transparent_palette_keeps_its_transparency() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([9, 9, 9, 200, 200, 200])
    storage = MemoryStorage()
    key = await storage.put(encoded(image, "PNG", transparency=0), content_type="image/png")
    picture = await read_picture(storage, key)
    assert (picture.mode, tuple(picture.pixels[:4])) == ("RGBA", (9, 9, 9, 0))


async def test_a_thumbnail_is_a_small_upright_webp_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path.write_bytes(encoded(halves().resize((640, 320)), "JPEG", exif=exif))
    with Image.open(io.BytesIO(await Pictures().thumbnail(path, side=64))) as small:
        assert (small.format, small.size) == ("WEBP", (32, 64))
    path.write_bytes(encoded(Image.new("RGBA", (30, 20), (1, 2, 3, 0)), "PNG"))
    with Image.open(io.BytesIO(await Pictures().thumbnail(path, side=64))) as small:
        assert (small.mode, small.size) == ("RGBA", (30, 20))  # never enlarged


async def test_a_picture_that_is_gone_is_not_found() -> None:
    for key in ("0" * 64 + ".png", "0" * 64 + ".txt", "../x"):
        with pytest.raises(ReverieError) as missing:
            await read_picture(MemoryStorage(), key)
        assert missing.value.code == ErrorCode.FILE_NOT_FOUND
