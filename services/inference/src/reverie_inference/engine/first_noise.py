"""The noise that a picture begins with: that of its seed, and of seeds beside it."""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor

from reverie_inference.engine.request import Request

#: Beyond this two noises point the same way, and a straight line is as good as an arc.
_PARALLEL = 0.9995


def first_noise(
    request: Request,
    shape: tuple[int, ...],
    generator: torch.Generator,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Noise of the job's own generator, drawn on the CPU so that all devices get the same, and its variations."""
    noise: torch.Tensor = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    for seed, weight in request.variations:
        other = torch.Generator("cpu").manual_seed(seed)
        noise = slerp(noise, randn_tensor(shape, generator=other, device=device, dtype=dtype), weight)
    return noise


def slerp(first: torch.Tensor, second: torch.Tensor, weight: float) -> torch.Tensor:
    """From `first` (weight 0) to `second` (weight 1) along the arc between them, which keeps noise as strong."""
    one, other = first.double().flatten(), second.double().flatten()
    cosine = torch.dot(one, other) / (one.norm() * other.norm())
    if abs(float(cosine)) > _PARALLEL:
        mixed = (1 - weight) * one + weight * other
    else:
        angle = torch.acos(cosine)
        mixed = (torch.sin((1 - weight) * angle) * one + torch.sin(weight * angle) * other) / torch.sin(angle)
    return mixed.reshape(first.shape).to(first.dtype)
