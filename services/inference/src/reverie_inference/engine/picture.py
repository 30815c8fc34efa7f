"""Encoded pictures with the parameters they were made with, as the A1111 web UI writes and reads them."""

from __future__ import annotations

import io

import msgspec
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from reverie_protocol.jobs import JobMeta

#: Fast: on pictures of this kind level 1 costs a third of level 6's time for a few percent more bytes.
PNG_COMPRESSION = 1
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_UNICODE = b"UNICODE\x00"
#: A JPEG segment holds 65,533 bytes; the rest is room for the EXIF structure around the comment.
_MAX_COMMENT_BYTES = 64_000


class EncodedPicture(msgspec.Struct, frozen=True):
    """A picture file; sides in pixels."""

    content: bytes
    content_type: str
    width: int
    height: int


def encode_picture(
    image: Image.Image, *, picture_format: str = "png", quality: int = 92, parameters: str = ""
) -> EncodedPicture:
    """`png` or `jpeg` (with `quality`); `parameters` goes into the file's metadata unless it is empty."""
    buffer = io.BytesIO()
    if picture_format == "jpeg":
        exif = _user_comment(parameters) if parameters else b""
        image = _opaque(image)
        image.save(buffer, "JPEG", quality=quality, exif=exif)
    else:
        info = PngInfo()
        if parameters:
            _add_text(info, "parameters", parameters)
        image.save(buffer, "PNG", pnginfo=info, compress_level=PNG_COMPRESSION)
    return EncodedPicture(buffer.getvalue(), f"image/{picture_format}", image.width, image.height)


def generation_parameters(
    prompt: str, negative_prompt: str | None, meta: JobMeta, *, version: str, partial: bool = False
) -> str:
    """The `parameters` text: prompt, negative prompt, then one line of settings."""
    lines = [prompt]
    if negative_prompt:
        lines.append(f"Negative prompt: {negative_prompt}")
    settings = {
        "Steps": str(meta.steps),
        "Sampler": meta.scheduler,
        "CFG scale": f"{meta.guidance:g}",
        "Seed": str(meta.seed),
        "Size": meta.size,
        "Model": _quoted(meta.model),
    }
    if meta.strength:
        settings["Denoising strength"] = f"{meta.strength:g}"
    if meta.native_size != meta.size:
        settings["Native size"] = meta.native_size
    if partial:
        settings["Partial"] = "True"
    settings["Version"] = f"Reverie {version}"
    lines.append(", ".join(f"{key}: {value}" for key, value in settings.items()))
    # NUL ends a PNG text field.
    return "\n".join(lines).replace("\x00", "")


def _opaque(image: Image.Image) -> Image.Image:
    """Without transparency, which JPEG does not have: white shows through."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _user_comment(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UNICODE + _fitting(text).encode("utf-16-be", "replace")
    return exif


def _fitting(text: str) -> str:
    """The text, with its prompts cut short where a JPEG segment cannot hold it; the line of settings stays."""
    if len(text.encode("utf-16-be", "replace")) <= _MAX_COMMENT_BYTES:
        return text
    prompts, _, settings = text.rpartition("\n")
    room = _MAX_COMMENT_BYTES - len(f"…\n{settings}".encode("utf-16-be", "replace"))
    cut = prompts.encode("utf-16-be", "replace")[: max(0, room)].decode("utf-16-be", "ignore")
    return f"{cut}…\n{settings}"


def _quoted(value: str) -> str:
    """Values with the line's own separators stand in quotes, as that UI parses them."""
    if not any(mark in value for mark in ",:\n"):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _add_text(info: PngInfo, key: str, text: str) -> None:
    """tEXt holds Latin-1 only; anything else goes as iTXt (PNG 1.2, 4.2.3)."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        info.add_itxt(key, text.encode("utf-8", "replace").decode())
    else:
        info.add_text(key, text)
