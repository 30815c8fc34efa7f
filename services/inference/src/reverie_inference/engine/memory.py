"""Telling "out of memory" from every other failure, on every device."""

from __future__ import annotations

import torch

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "invalid buffer size")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed.

    CUDA has an exception of its own; the CPU's allocator and MPS raise a plain RuntimeError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).casefold()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)
