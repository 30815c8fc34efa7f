"""Which device a model runs on, and in which precision."""

from __future__ import annotations

import torch

from reverie_protocol.errors import ErrorCode, ReverieError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `model_load_failed` if this machine does not have it."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise ReverieError(
            ErrorCode.MODEL_LOAD_FAILED, f"The device {name} of inference.device is not on this machine."
        )
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is half precision on an accelerator and single on a CPU, where half is slower."""
    if name != "auto":
        return DTYPES[name]
    return torch.float32 if device.type == "cpu" else torch.float16


class DeviceLost(Exception):
    """The accelerator answers nothing any more in this process; only a new process gets it back."""


def is_lost(device: torch.device) -> bool:
    """Whether a device that just failed will fail at whatever comes next.

    After a fault in a kernel every later CUDA call of the process fails; after an allocation that did not fit, or
    arguments that a kernel refused, the next one works.
    """
    if device.type == "cpu":
        return False
    try:
        torch.ones(1, device=device).sum().item()
    except torch.OutOfMemoryError:
        return False
    except RuntimeError:
        return True
    return False


def release_cached_memory(device: torch.device) -> None:
    """Give freed accelerator memory back, so that the next job starts with all there is."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
