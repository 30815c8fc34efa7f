"""What kind of file something is, by its first bytes, and how large its picture is; pure.

Names and headers that ComfyUI gives are only a second opinion, and nothing becomes what a browser would run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from reverie_storage.port import CONTENT_TYPES, EXTENSIONS

UNKNOWN: Final = "application/octet-stream"
#: Bytes from the start of a file that are enough for both questions, JPEG with long comments apart.
HEAD_BYTES: Final = 256 << 10
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"glTF", "model/gltf-binary"),
)
#: Types whose bytes are known: who claims to be one of them and does not begin so is not.
_RECOGNISED: Final = frozenset(kind for _, kind in _MAGIC) | {
    "image/webp",
    "audio/wav",
    "video/mp4",
    "video/quicktime",
    "audio/mp4",
    "video/webm",
    "video/x-matroska",
}
_ALIASES: Final = {
    "audio/x-flac": "audio/flac",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "image/jpg": "image/jpeg",
}


def media_type(head: bytes, *, said: str = "", filename: str = "") -> str:
    """The media type of a file that begins with `head`; one that the store knows."""
    found = _recognised(head)
    if found:
        return found
    extension = filename.rpartition(".")[2].lower()
    for opinion in (_ALIASES.get(said, said), CONTENT_TYPES.get(extension, "")):
        if opinion in EXTENSIONS and opinion not in _RECOGNISED - {"audio/mpeg"}:
            return opinion
    return UNKNOWN


def _recognised(head: bytes) -> str:
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return {b"qt  ": "video/quicktime", b"M4A ": "audio/mp4"}.get(head[8:12], "video/mp4")
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    return ""


def picture_size(head: bytes) -> tuple[int, int]:
    """Width and height of a PNG, JPEG, GIF or WebP in pixels; zeros where they cannot be read."""
    try:
        if head.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", head, 16)
        elif head.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", head, 6)
        elif head.startswith(b"\xff\xd8"):
            width, height = next(_jpeg_sizes(head), (0, 0))
        elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            width, height = _webp_size(head)
        else:
            width = height = 0
    except (IndexError, ValueError, struct.error):
        return 0, 0
    return int(width), int(height)


def _jpeg_sizes(head: bytes) -> Iterator[tuple[int, int]]:
    """Sizes in the frame headers (SOF), of which there is one."""
    at = 2
    while at + 9 < len(head):
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            yield width, height
            return
        at += 2 + int(struct.unpack_from(">H", head, at + 2)[0])


def _webp_size(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    bits = int(struct.unpack_from("<I", head, 21)[0])
    return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
