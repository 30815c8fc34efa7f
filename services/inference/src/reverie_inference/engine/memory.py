"""Memory: telling "out of memory" from other failures, and not starting what cannot fit."""

from __future__ import annotations

import psutil
import torch

from reverie_inference.models.loaded import LoadedModel, Size
from reverie_protocol.errors import ErrorCode, ReverieError

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "invalid buffer size")
#: Full-size feature maps that decoding holds at once: a convolution's input, its output, and the sum beside it.
_MAPS_HELD = 3


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed.

    CUDA has an exception of its own; the CPU's allocator and MPS raise a plain RuntimeError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).casefold()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def out_of_memory(device: torch.device) -> ReverieError:
    """The error for a picture that does not fit."""
    return ReverieError(
        ErrorCode.OUT_OF_MEMORY,
        f"There is not enough memory on {device} for this picture; try a smaller size.",
    )


def require_memory(model: LoadedModel, drawn: Size, *, available_bytes: int | None = None) -> None:
    """Refuse a picture of `drawn` pixels that a CPU's memory cannot hold; ReverieError `out_of_memory`.

    An accelerator says when it is full.  The operating system kills the process instead, and with it every job.
    """
    if model.device.type != "cpu":
        return
    available = psutil.virtual_memory().available if available_bytes is None else available_bytes
    if decoding_bytes(model, drawn) > available:
        raise out_of_memory(model.device)


class PeakMemory:
    """What the work inside takes of an accelerator at its widest, in `bytes`; 0 on others, which do not tell."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self._device) - self._before


def decoding_bytes(model: LoadedModel, drawn: Size) -> int:
    """What decoding a picture takes at its widest, where the maps have the picture's full size."""
    config = getattr(getattr(model.pipeline, "vae", None), "config", {})
    channels: int = min(config.get("block_out_channels") or [128])
    return drawn[0] * drawn[1] * channels * model.dtype.itemsize * _MAPS_HELD
