"""What a weight file is, judged by its bytes before anything loads it.

Pickled checkpoints run code when they are opened, so they are recognised (also under a wrong name) and refused.
A safetensors file starts with the length of a JSON header (8 bytes, little-endian), the header, then the data:
https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

from reverie_protocol.errors import ErrorCode, ReverieError

PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
_ZIP = b"PK\x03\x04"  # what `torch.save` makes
_PICKLE, _PICKLE_PROTOCOLS = b"\x80", range(2, 6)


class TensorInfo(msgspec.Struct, frozen=True):
    """Type, shape and byte range (within the data) of one tensor, as the header states them."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class WeightFile(msgspec.Struct, frozen=True):
    """Names and shapes of a safetensors file; the data stays on disk."""

    path: Path
    tensors: dict[str, TensorInfo]

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor; KeyError if the file does not hold it."""
        return self.tensors[key].shape

    def count(self, prefix: str) -> int:
        """How many numbered parts `prefix.0`, `prefix.1`, … there are."""
        start = f"{prefix}."
        numbers = {key[len(start) :].split(".")[0] for key in self.tensors if key.startswith(start)}
        return len({number for number in numbers if number.isdigit()})


def unsafe_checkpoint(what: str) -> ReverieError:
    """The refusal of a pickled checkpoint, with the way out."""
    return ReverieError(
        ErrorCode.UNSAFE_CHECKPOINT,
        f"{what} is a pickled checkpoint, which can run code when it is opened; convert it to safetensors.",
    )


def broken_file(path: Path, reason: str) -> ReverieError:
    """The error for a file that cannot be what its name says."""
    return ReverieError(ErrorCode.MODEL_LOAD_FAILED, f"{path.name} cannot be loaded: {reason}.")


def read_weight_file(path: Path) -> WeightFile:
    """Header of a safetensors file.

    Raises `unsafe_checkpoint` for a pickle under any name and `model_load_failed` for a file that is empty, cut
    short or no safetensors at all.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LENGTH_BYTES)
            length = _header_bytes(path, start, size)
            header = file.read(length)
    except OSError as error:
        raise broken_file(path, error.strerror or "it cannot be read") from error
    tensors = _parse_header(path, header)
    data_bytes = size - _LENGTH_BYTES - length
    needed_bytes = max((info.data_offsets[1] for info in tensors.values()), default=0)
    if needed_bytes > data_bytes:
        raise broken_file(path, f"it is cut short, {needed_bytes - data_bytes} bytes are missing")
    return WeightFile(path, tensors)


def _header_bytes(path: Path, start: bytes, size: int) -> int:
    """Length of the header by the file's first bytes; the errors of `read_weight_file`."""
    if path.suffix in PICKLE_SUFFIXES:
        raise unsafe_checkpoint(path.name)
    if len(start) < _LENGTH_BYTES:
        raise broken_file(path, "the file is empty or cut short")
    (length,) = struct.unpack("<Q", start)
    if length <= min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
        return int(length)
    # A pickle's first opcodes make no sensible length, so only now can they be told from a safetensors file.
    if start.startswith(_ZIP) or (start[:1] == _PICKLE and start[1] in _PICKLE_PROTOCOLS):
        raise unsafe_checkpoint(path.name)
    raise broken_file(path, "it is cut short, or no safetensors file")


def _parse_header(path: Path, header: bytes) -> dict[str, TensorInfo]:
    try:
        fields = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        fields.pop("__metadata__", None)
        return {key: msgspec.json.decode(raw, type=TensorInfo) for key, raw in fields.items()}
    except msgspec.DecodeError as error:
        raise broken_file(path, "its header is no safetensors header") from error
