"""Decoding that survives an autoencoder which overflows in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
import torch

log = structlog.get_logger(__name__)


def decode_surely(
    vae: Any, latents: torch.Tensor, decode: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """What `decode` makes of the latents; once more in single precision where that is not finite."""
    decoded = decode(latents)
    if vae.dtype == torch.float32 or bool(torch.isfinite(decoded).all()):
        return decoded
    dtype = vae.dtype
    log.warning("autoencoder_overflowed", dtype=str(dtype))
    vae.to(torch.float32)
    try:
        return decode(latents.float())
    finally:
        vae.to(dtype)
