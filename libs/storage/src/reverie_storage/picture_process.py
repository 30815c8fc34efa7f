"""What runs in the process that decodes a picture of a stranger: started by `pictures`, never imported by anything.

It limits its own memory and time before it looks at the file, answers with one line of JSON, and ends.  It imports
nothing of Reverie, so that it starts fast and holds no secrets.  Arguments: one JSON object, see `Errand` in
`pictures`.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import re
import resource
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as Opened

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
#: A JPEG marker that ends a run of coded data: neither stuffing nor a restart marker nor fill.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
#: How Pillow holds the pixels that a colour profile is for, by the profile's colour space.
PROFILED = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
#: Pixels of a picture, alpha aside, that are those of a profile: grey ones are equal parts of three colours.
FITTING = {("RGB", "RGB"), ("L", "RGB"), ("L", "L"), ("CMYK", "CMYK")}
#: Rows that are written at once, so that no second copy of the picture is made.
STRIP_ROWS = 256


class Refused(Exception):
    """The picture is not taken; code and a sentence for the client."""


def main() -> None:
    """Run the errand in the first argument and say how it went."""
    errand = json.loads(sys.argv[1])
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_CPU, errand["cpu_s"])
    limit(resource.RLIMIT_AS, errand["memory_bytes"])
    limit(resource.RLIMIT_FSIZE, errand["output_bytes"])
    limit(resource.RLIMIT_NOFILE, 32)
    try:
        answer = ERRANDS[errand["errand"]](errand)
    except Refused as refused:
        code, message = refused.args
        answer = {"code": code, "message": message}
    except MemoryError:
        answer = {"code": "payload_too_large", "message": "the picture takes too much memory to decode"}
    sys.stdout.write(json.dumps(answer))


def limit(which: int, value: int) -> None:
    """Set a limit of this process, where the system has it and it is not lower already."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (value, value))


def inspect(errand: dict[str, Any]) -> dict[str, Any]:
    """Check the whole file: type, end, size in pixels, and that it can be decoded to the last row."""
    media_type, length = measure(errand["path"])
    image = opened(errand, media_type)
    decoded(image)
    return {"type": media_type, "width": image.width, "height": image.height, "length": length}


def decode(errand: dict[str, Any]) -> dict[str, Any]:
    """Write the picture's pixels: upright, RGB or RGBA, 8 bits a channel, rows without gaps."""
    image = upright(opened(errand, sniffed(errand["path"])))
    with open(errand["output"], "wb") as output:
        for top in range(0, image.height, STRIP_ROWS):
            strip = image.crop((0, top, image.width, min(image.height, top + STRIP_ROWS)))
            output.write(strip.tobytes())
    return {"mode": image.mode, "width": image.width, "height": image.height}


def thumbnail(errand: dict[str, Any]) -> dict[str, Any]:
    """Write a WebP whose longer side has at most so many pixels."""
    from PIL import Image

    side = errand["side"]
    image = opened(errand, sniffed(errand["path"]))
    image.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size
    image = upright(image)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(errand["output"], "WEBP", quality=82, method=4)
    return {"width": image.width, "height": image.height}


def mask(errand: dict[str, Any]) -> dict[str, Any]:
    """Write a grey PNG that is white where the picture is transparent, or (`of` = "black") where it is black."""
    from PIL import Image, ImageChops

    image = upright(opened(errand, sniffed(errand["path"])))
    if errand["of"] == "black":
        grey = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert(
            "L"
        )
    elif image.mode == "RGBA":
        grey = image.getchannel("A")
    else:
        raise Refused("invalid_upload", "the mask has no transparent parts; they say what is drawn anew")
    ImageChops.invert(grey).save(errand["output"], "PNG")
    return {"width": image.width, "height": image.height}


ERRANDS = {"inspect": inspect, "decode": decode, "thumbnail": thumbnail, "mask": mask}


def opened(errand: dict[str, Any], media_type: str) -> Opened:
    """The picture, its header read and its size found to be within the limit, nothing decoded yet."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the limit is ours
    kind = media_type.partition("/")[2].upper()
    try:
        image = Image.open(errand["path"], formats=[kind])
    except MemoryError:
        raise
    except Exception as error:
        raise undecodable(kind) from error
    pixels = image.width * image.height
    if pixels > errand["max_pixels"]:
        raise Refused(
            "payload_too_large",
            f"the picture has {image.width}x{image.height} = {pixels / 1e6:.1f} megapixels; "
            f"at most {errand['max_pixels'] / 1e6:g} are allowed",
        )
    return image


def decoded(image: Opened) -> None:
    """Decode to the last row."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise undecodable(image.format) from error


def upright(image: Opened) -> Opened:
    """The picture as it is meant to be seen: EXIF orientation and colour profile applied.

    RGB, or RGBA if it has an alpha channel.
    """
    from PIL import ImageOps

    decoded(image)
    try:
        image = ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:
        pass  # unreadable EXIF data: as the pixels stand
    if image.mode.startswith("I"):  # 16 bits of grey
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    profile = image.info.get("icc_profile")
    if profile:
        # A colour that stands for transparency has to be looked for before it becomes another.
        if image.mode == "P" or (mode == "RGBA" and image.mode not in ("RGBA", "LA")):
            image = image.convert(mode)
        image = in_srgb(image, profile)
    return image if image.mode == mode else image.convert(mode)


def in_srgb(image: Opened, profile: bytes) -> Opened:
    """The picture in sRGB: what is said of its colours is applied.

    A profile that is sRGB already, cannot be read, or is for other pixels than these changes nothing.
    """
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = PROFILED.get(source.profile.xcolor_space.strip(), "")
        plain = {"RGBA": "RGB", "LA": "L", "1": "L"}.get(image.mode, image.mode)
        if ImageCms.getProfileDescription(source).startswith("sRGB") or (plain, space) not in FITTING:
            return image
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), space, "RGB", ImageCms.getDefaultIntent(source)
        )
    except MemoryError:
        raise
    except Exception:
        return image
    alpha = image.getchannel("A") if image.mode.endswith("A") else None
    pixels = image if image.mode == space else image.convert(space)
    del image  # two copies at most
    seen = ImageCms.applyTransform(pixels, transform)
    if seen is None:  # what it makes of a picture that it may change
        seen = pixels
    if alpha is not None:
        seen.putalpha(alpha)
    return seen


def undecodable(kind: str | None) -> Refused:
    """Why a file that begins as a picture is not taken."""
    return Refused(
        "unsupported_media_type", f"the file is a broken or truncated {kind}: it cannot be decoded"
    )


def sniffed(path: str) -> str:
    """Media type by the first bytes."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head.startswith(PNG_SIGNATURE):
        return "image/png"
    if head.startswith(JPEG_START):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    raise Refused("unsupported_media_type", "the file is no picture; PNG, JPEG and WebP are taken")


def measure(path: str) -> tuple[str, int]:
    """Media type, and where the picture ends; what follows a picture makes the file something else as well."""
    media_type = sniffed(path)
    end_of = {"image/png": png_end, "image/jpeg": jpeg_end, "image/webp": webp_end}[media_type]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = end_of(data)
        if end is None or end > len(data):
            raise undecodable(media_type.partition("/")[2].upper())
        rest = data[end:]
    if rest and not (media_type == "image/jpeg" and of_a_camera(rest)):
        raise Refused(
            "unsupported_media_type",
            f"the file has {len(rest)} bytes after the end of its picture: it is more than a picture",
        )
    return media_type, end


def of_a_camera(rest: bytes) -> bool:
    """Whether cameras write such bytes behind a JPEG; they are left out of what is stored.

    That is a second picture (MPO, gain maps), padding, or the notes that some telephones end their files with.
    """
    return (
        rest.startswith(JPEG_START) or not rest.strip(b"\0") or (b"SEFH" in rest and rest.endswith(b"SEFT"))
    )


def png_end(data: mmap.mmap) -> int | None:
    """End of the IEND chunk; None where a chunk is cut off or damaged."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + size
        if end > len(data):
            return None
        kind = data[at + 4 : at + 8]
        told = int.from_bytes(data[end - 4 : end], "big")
        if kind != b"IDAT" and zlib.crc32(data[at + 4 : end - 4]) != told:
            return None
        if kind == b"IEND":
            return end
        at = end
    return None


def jpeg_end(data: mmap.mmap) -> int | None:
    """Behind the EOI marker of the first picture; None where there is none."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return at + 2
        (size,) = struct.unpack(">H", data[at + 2 : at + 4])
        at += 2 + size
        if marker == 0xDA:  # coded data follows, up to the next marker
            found = JPEG_MARKER.search(data, at)
            if found is None:
                return None
            at = found.start()
    return at + 2 if data[at : at + 2] == b"\xff\xd9" else None


def webp_end(data: mmap.mmap) -> int | None:
    """What the RIFF header says, to an even number."""
    size = int.from_bytes(data[4:8], "little")
    return 8 + size + size % 2


if __name__ == "__main__":
    main()
