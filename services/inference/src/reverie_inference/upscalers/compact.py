"""The compact network of Real-ESRGAN (SRVGGNet): convolutions and activations alternate in ``body``, the last
convolution's channels are shuffled into pixels, and the input, enlarged by repeating its pixels, is added.

Its activations are PReLUs, whose weights stand in the file, or leaky ReLUs, which leave a gap in the numbering.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from reverie_inference.upscalers.network import Network, UnusableWeights

_SLOPE = 0.1


class CompactNetwork(Network):
    """Enlarges by `scale`; `width` channels inside, `depth` convolutions between the first and the last."""

    def __init__(self, scale: int, width: int = 32, depth: int = 8, *, learned_slopes: bool = True) -> None:
        super().__init__()
        self.scale = scale
        self.reach = depth + 2
        self.bytes_per_pixel = 4 * 3 * max(width, 3 * scale * scale)

        def activation() -> nn.Module:
            return nn.PReLU(width) if learned_slopes else nn.LeakyReLU(_SLOPE)

        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), activation()]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), activation()]
        layers.append(nn.Conv2d(width, 3 * scale * scale, 3, padding=1))
        self.body = nn.ModuleList(layers)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 3, scale * H, scale * W], not clamped."""
        hidden = image
        for layer in self.body:
            hidden = layer(hidden)
        base = nn.functional.interpolate(image, scale_factor=self.scale, mode="nearest")
        return nn.functional.pixel_shuffle(hidden, self.scale) + base


def is_compact(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a compact network."""
    return "body.0.weight" in weights and weights["body.0.weight"].dim() == 4


def compact_network(weights: Mapping[str, Tensor]) -> CompactNetwork:
    """The network of these weights, its sizes read off their shapes; UnusableWeights if they do not fit."""
    first = weights["body.0.weight"]
    last = max(int(name.split(".")[1]) for name in weights if name.startswith("body."))
    end = weights.get(f"body.{last}.weight")
    if end is None or end.dim() != 4 or last < 2 or last % 2:
        raise UnusableWeights("it holds no compact super-resolution network")
    scale = math.isqrt(end.shape[0] // 3)
    if first.shape[1] != 3 or scale < 1 or 3 * scale * scale != end.shape[0]:
        raise UnusableWeights("it is not for RGB pictures")
    learned_slopes = "body.1.weight" in weights
    return CompactNetwork(scale, first.shape[0], last // 2 - 1, learned_slopes=learned_slopes)
