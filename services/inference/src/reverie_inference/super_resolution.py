"""Enlarges pictures with a compact network (x2, x4).

The layout of the weights is that of Real-ESRGAN's published compact network, so that its
`.safetensors` files work here and ours elsewhere: convolutions and PReLUs alternate in
``body``, the last convolution's channels are shuffled into pixels, and the input, enlarged by
repeating its pixels, is added.
"""

import math
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class UnusableWeights(ValueError):
    """A file that holds no compact super-resolution network; the message says why."""


class Upscaler(nn.Module):
    """A super-resolution network that enlarges by `scale` in both directions."""

    def __init__(self, scale: int, width: int = 32, depth: int = 8) -> None:
        """`width`: channels inside; `depth`: convolutions between the first and the last."""
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        layers.append(nn.Conv2d(width, 3 * scale * scale, 3, padding=1))
        self.body = nn.ModuleList(layers)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarges [N, 3, H, W] to [N, 3, scale * H, scale * W] without clamping."""
        hidden = image
        for layer in self.body:
            hidden = layer(hidden)
        base = nn.functional.interpolate(image, scale_factor=self.scale, mode="nearest")
        return nn.functional.pixel_shuffle(hidden, self.scale) + base

    @torch.inference_mode()
    def upscale(self, image: Tensor) -> Tensor:
        """Enlarges float pictures [N, 3, H, W] in 0 to 1; the result is in 0 to 1 too."""
        weight = cast(Tensor, self.body[0].weight)
        enlarged: Tensor = self(image.to(device=weight.device, dtype=weight.dtype))
        return enlarged.clamp(0, 1).to(device=image.device, dtype=image.dtype)


def _built_for(weights: dict[str, Tensor], path: Path) -> Upscaler:
    first = weights.get("body.0.weight")
    last = max((int(name.split(".")[1]) for name in weights if name.startswith("body.")), default=0)
    end = weights.get(f"body.{last}.weight")
    if first is None or end is None or first.dim() != 4 or end.dim() != 4 or last < 2 or last % 2:
        raise UnusableWeights(f"{path.name} holds no compact super-resolution network")
    scale = math.isqrt(end.shape[0] // 3)
    if first.shape[1] != 3 or scale < 1 or 3 * scale * scale != end.shape[0]:
        raise UnusableWeights(f"{path.name} is not for RGB pictures")
    return Upscaler(scale, width=first.shape[0], depth=last // 2 - 1)


def load_upscaler(
    path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Upscaler:
    """Loads a network; its scale, width and depth follow from the file.

    Raises UnusableWeights for anything but a `.safetensors` file of this layout, and
    FileNotFoundError where there is no file.
    """
    if path.suffix != ".safetensors":
        raise UnusableWeights(f"{path.name}: only .safetensors files are loaded")
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise UnusableWeights(f"{path.name} is not a readable .safetensors file") from error
    network = _built_for(weights, path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UnusableWeights(f"{path.name} has layers this network does not know") from error
    return network.to(device=device, dtype=dtype).eval()


def upscale(upscaler: Upscaler, image: Tensor) -> Tensor:
    """Enlarges float pictures [N, 3, H, W] in 0 to 1 by `upscaler.scale`."""
    return upscaler.upscale(image)
