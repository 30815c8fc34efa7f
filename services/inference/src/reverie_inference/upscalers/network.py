"""What every super-resolution network promises to those who enlarge with it."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn


class UnusableWeights(ValueError):
    """A file that holds no super-resolution network for RGB pictures; the message says why."""


class Upscaler(Protocol):
    """A super-resolution network for one fixed factor.

    `name` is what people call it.  What it makes of a pixel depends on its neighbours up to `reach` pixels away
    and, if `multiple` is above 1, on where they lie in a grid of that width.  `bytes_per_pixel` is about what one
    pixel of the input takes while the network works.
    """

    name: str
    scale: int
    reach: int
    multiple: int
    bytes_per_pixel: int

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def upscale(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] of 0..1 to [N, 3, scale*H, scale*W] of 0..1."""


class Network(nn.Module):
    """A network of ours: how its weights' place and precision become those of its work."""

    name = ""
    scale = 1
    reach = 0
    multiple = 1
    bytes_per_pixel = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weight.device

    @property
    def _weight(self) -> Tensor:
        return next(self.parameters())

    @torch.inference_mode()
    def upscale(self, image: Tensor) -> Tensor:
        """Enlarge float pictures [N, 3, H, W] of 0..1; the result is where, and as precise as, they were."""
        weight = self._weight
        enlarged = cast(Tensor, self(image.to(device=weight.device, dtype=weight.dtype)))
        return enlarged.clamp(0, 1).to(device=image.device, dtype=image.dtype)
