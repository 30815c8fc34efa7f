"""Binary preview frame: 4 bytes big-endian header length, a JSON `PreviewHeader`, then the encoded picture.

The same bytes travel on `job.preview.<id>` and as a binary WebSocket frame, so a gateway never decodes them.
"""

from __future__ import annotations

import struct

import msgspec

from reverie_protocol.quantities import Attempt, Pixels, StepCount, StepIndex

_LENGTH = struct.Struct(">I")


class PreviewHeader(msgspec.Struct, frozen=True, rename="camel"):
    """What the picture after it shows: which job and step, its size in pixels and its media type."""

    job_id: str
    attempt: Attempt
    step: StepIndex
    steps: StepCount
    width: Pixels
    height: Pixels
    content_type: str = "image/jpeg"


def encode_preview(header: PreviewHeader, picture: bytes) -> bytes:
    """One frame ready to publish."""
    head = msgspec.json.encode(header)
    return _LENGTH.pack(len(head)) + head + picture


def decode_preview(frame: bytes) -> tuple[PreviewHeader, bytes]:
    """The header and the encoded picture of a frame; ValueError if it is none."""
    if len(frame) < _LENGTH.size:
        raise ValueError("preview frame is shorter than its length field")
    (length,) = _LENGTH.unpack_from(frame)
    body = _LENGTH.size + length
    if len(frame) < body:
        raise ValueError("preview frame is shorter than its header says")
    return msgspec.json.decode(frame[_LENGTH.size : body], type=PreviewHeader), frame[body:]
