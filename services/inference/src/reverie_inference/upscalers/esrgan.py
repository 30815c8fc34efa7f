"""ESRGAN's network (RRDBNet): residual blocks of densely connected convolutions, then doublings.

X. Wang et al., "ESRGAN" (2018), and "Real-ESRGAN" (2021), whose x1 and x2 networks first fold the picture's pixels
into channels.  Weights come under three sets of names: the first release's (``model.1.sub.0.RDB1...``), the
second's (``RRDB_trunk...``) and Real-ESRGAN's (``body.0.rdb1...``), which are also used here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reverie_inference.upscalers.network import Network, UnusableWeights

_SLOPE, _RESIDUAL = 0.2, 0.2
_DENSE = 5  # convolutions in a dense block, three of which make a residual block
_SECOND_NAMES = {
    "trunk_conv": "conv_body",
    "HRconv": "conv_hr",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "upconv3": "conv_up3",
}
_FIRST_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.(weight|bias)")
_SECOND_BLOCK = re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])\.(weight|bias)")


class _DenseBlock(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(1, _DENSE + 1):
            out = width if number == _DENSE else growth
            self.add_module(f"conv{number}", nn.Conv2d(width + (number - 1) * growth, out, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        seen, out = image, image
        for number in range(1, _DENSE + 1):
            out = self.get_submodule(f"conv{number}")(seen)
            if number < _DENSE:
                seen = torch.cat((seen, nn.functional.leaky_relu(out, _SLOPE)), 1)
        return out * _RESIDUAL + image


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(width, growth)
        self.rdb2 = _DenseBlock(width, growth)
        self.rdb3 = _DenseBlock(width, growth)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.rdb3(self.rdb2(self.rdb1(image)))
        return out * _RESIDUAL + image


class EsrganNetwork(Network):
    """Folds `fold` x `fold` pixels into channels, then doubles `doublings` times: 2^doublings / fold."""

    def __init__(self, *, fold: int, width: int, growth: int, blocks: int, doublings: int) -> None:
        super().__init__()
        self.scale = 2**doublings // fold
        self.multiple = fold
        # At the folded size each residual block has fifteen convolutions; after it their reach halves each time.
        convolutions = 2 + 3 * _DENSE * blocks + sum(0.5**level for level in range(1, doublings + 1))
        self.reach = fold * math.ceil(convolutions + 2 * 0.5**doublings)
        self.bytes_per_pixel = 4 * 3 * width * self.scale * self.scale
        self._fold = fold
        self.doublings = doublings
        self.conv_first = nn.Conv2d(3 * fold * fold, width, 3, padding=1)
        self.body = nn.Sequential(*(_ResidualBlock(width, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        for number in range(1, doublings + 1):
            self.add_module(f"conv_up{number}", nn.Conv2d(width, width, 3, padding=1))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 3, scale * H, scale * W], not clamped; sides are filled up to whole folds."""
        height, width = image.shape[2:]
        fill = (0, -width % self._fold, 0, -height % self._fold)
        if any(fill):
            mirrored = min(height, width) >= self._fold
            image = nn.functional.pad(image, fill, mode="reflect" if mirrored else "replicate")
        folded = nn.functional.pixel_unshuffle(image, self._fold) if self._fold > 1 else image
        features: Tensor = self.conv_first(folded)
        features = features + self.conv_body(self.body(features))
        for number in range(1, self.doublings + 1):
            doubled = nn.functional.interpolate(features, scale_factor=2, mode="nearest")
            features = nn.functional.leaky_relu(self.get_submodule(f"conv_up{number}")(doubled), _SLOPE)
        features = nn.functional.leaky_relu(self.conv_hr(features), _SLOPE)
        enlarged: Tensor = self.conv_last(features)
        return enlarged[:, :, : height * self.scale, : width * self.scale]


def is_esrgan(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of such a network, under any of the three sets of names."""
    firsts = (
        "model.1.sub.0.RDB1.conv1.0.weight",
        "RRDB_trunk.0.RDB1.conv1.weight",
        "body.0.rdb1.conv1.weight",
    )
    return any(name in weights for name in firsts)


def esrgan_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under Real-ESRGAN's names; names that are not known stay as they are."""
    if "model.0.weight" in weights:
        return _from_first_names(weights)
    named = {}
    for key, value in weights.items():
        block = _SECOND_BLOCK.fullmatch(key)
        module, _, kind = key.rpartition(".")
        named[_block_key(block) if block else f"{_SECOND_NAMES.get(module, module)}.{kind}"] = value
    return named


def esrgan_network(weights: Mapping[str, Tensor]) -> EsrganNetwork:
    """The network of these weights (under Real-ESRGAN's names), its sizes read off their shapes.

    UnusableWeights if they do not fit together.
    """
    try:
        first, dense = weights["conv_first.weight"], weights["body.0.rdb1.conv1.weight"]
        last = weights["conv_last.weight"]
    except KeyError as missing:
        raise UnusableWeights(f"it lacks {missing.args[0]}") from None
    fold = math.isqrt(first.shape[1] // 3)
    if last.shape[0] != 3 or 3 * fold * fold != first.shape[1]:
        raise UnusableWeights("it is not for RGB pictures")
    doublings = len({key for key in weights if re.fullmatch(r"conv_up\d\.weight", key)})
    if 2**doublings % fold:
        raise UnusableWeights("it does not enlarge")
    blocks = len({key.split(".")[1] for key in weights if key.startswith("body.")})
    return EsrganNetwork(
        fold=fold, width=first.shape[0], growth=dense.shape[0], blocks=blocks, doublings=doublings
    )


def _block_key(match: re.Match[str]) -> str:
    block, dense, convolution, kind = match.groups()
    return f"body.{block}.rdb{dense}.conv{convolution}.{kind}"


def _from_first_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first release numbers the layers of one long sequence; the last two are those at the final size."""
    named, tail = {}, {}
    trunk_end = max((int(m[1]) for k in weights if (m := re.match(r"model\.1\.sub\.(\d+)\.", k))), default=0)
    for key, value in weights.items():
        block = _FIRST_BLOCK.fullmatch(key)
        layer = re.fullmatch(r"model\.(\d+)\.(weight|bias)", key)
        if block:
            named[_block_key(block)] = value
        elif key.startswith(f"model.1.sub.{trunk_end}."):
            named[f"conv_body.{key.rpartition('.')[2]}"] = value
        elif layer:
            tail[int(layer[1]), layer[2]] = value
        else:
            named[key] = value
    numbers = sorted({number for number, _ in tail})
    doublings = len(numbers) - 3
    names = ["conv_first", *(f"conv_up{index + 1}" for index in range(doublings)), "conv_hr", "conv_last"]
    renamed = dict(zip(numbers, names, strict=False)) if doublings >= 0 else {}
    for (number, kind), value in tail.items():
        named[f"{renamed.get(number, f'model.{number}')}.{kind}"] = value
    return named
