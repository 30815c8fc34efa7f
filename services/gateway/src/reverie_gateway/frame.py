"""A WebSocket message as the bytes of one unmasked frame (RFC 6455, section 5.2); pure.

Server frames carry no mask and nothing is compressed, so the bytes for one socket are the bytes for all.
"""

from __future__ import annotations

import struct
from typing import Final

#: Final frames of a text and of a binary message.
_TEXT: Final = 0x81
_BINARY: Final = 0x82
_MAX_SHORT: Final = 125
_MAX_MEDIUM: Final = 0xFFFF
_MEDIUM, _LONG = 126, 127


def text_frame(payload: bytes) -> bytes:
    """A text message; `payload` is UTF-8."""
    return _header(_TEXT, len(payload)) + payload


def binary_frame(payload: bytes) -> bytes:
    """A binary message."""
    return _header(_BINARY, len(payload)) + payload


def payload_of(frame: bytes) -> bytes:
    """What a frame of ours carries."""
    length = frame[1]
    if length == _LONG:
        return frame[10:]
    return frame[4:] if length == _MEDIUM else frame[2:]


def _header(kind: int, length: int) -> bytes:
    if length <= _MAX_SHORT:
        return bytes((kind, length))
    if length <= _MAX_MEDIUM:
        return struct.pack("!BBH", kind, _MEDIUM, length)
    return struct.pack("!BBQ", kind, _LONG, length)
