"""Networks of all other families, through spandrel, where the operator has installed it.

It is no dependency of ours because it brings torchvision, which has to match the installed torch build exactly.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from reverie_inference.upscalers.network import UnusableWeights

EXTRA = "reverie-inference[upscalers]"
#: A guess, since the families differ: enough for convolutions of some depth and for the windows of transformers.
_REACH, _WIDTH = 64, 180


class OtherNetwork:
    """A network as spandrel describes it, with what every `Upscaler` promises."""

    def __init__(self, described: Any) -> None:
        self._described = described
        self.name = ""
        self.scale = int(described.scale)
        self.reach = _REACH
        self.multiple = max(1, int(described.size_requirements.multiple_of or 1))
        self.bytes_per_pixel = 4 * 3 * _WIDTH * max(1, self.scale)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self._described.device)

    @torch.inference_mode()
    def upscale(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] of 0..1 to [N, 3, scale*H, scale*W] of 0..1; spandrel fills sides up as the family needs."""
        seen = image.to(device=self._described.device, dtype=self._described.dtype)
        # One by one: a described model takes a single picture.
        enlarged = torch.cat([self._described(part[None]) for part in seen])
        return enlarged.clamp(0, 1).to(device=image.device, dtype=image.dtype)


def other_network(weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> OtherNetwork:
    """The network of weights of any other family; UnusableWeights, also where spandrel is not installed."""
    if importlib.util.find_spec("spandrel") is None:
        raise UnusableWeights(
            "it is of a family that is read with the package spandrel, which is not installed; "
            f'install it with: pip install "{EXTRA}"'
        )
    spandrel = importlib.import_module("spandrel")
    try:
        described = spandrel.ModelLoader().load_from_state_dict(dict(weights))
    except spandrel.UnsupportedModelError as error:
        raise UnusableWeights("it is of a family that nothing here can read") from error
    if not isinstance(described, spandrel.ImageModelDescriptor) or described.input_channels != 3:
        raise UnusableWeights("it is not for RGB pictures")
    return OtherNetwork(described.to(device, dtype).eval())
