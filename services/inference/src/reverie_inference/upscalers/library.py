"""Which super-resolution networks there are: read from single `.safetensors` files or a folder of them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from reverie_inference.models.weight_file import PICKLE_SUFFIXES, read_weight_file, unsafe_checkpoint
from reverie_inference.upscalers.compact import compact_network, is_compact
from reverie_inference.upscalers.esrgan import esrgan_network, esrgan_weights, is_esrgan
from reverie_inference.upscalers.network import Network, UnusableWeights, Upscaler
from reverie_inference.upscalers.other_networks import other_network
from reverie_protocol.errors import ErrorCode, ReverieError

SUFFIX = ".safetensors"
#: What training wraps the weights in; the averaged ones are meant to be used.
_WRAPPERS = ("params_ema.", "params.", "module.")
_BUILT_IN = re.compile(r"x(\d)")


def load_upscaler(
    path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Upscaler:
    """The network in a file; family, scale and widths follow from its weights.

    ReverieError `unsafe_checkpoint` for a pickle under any name, `model_load_failed` for a file that is cut short,
    is no safetensors file, or holds nothing that enlarges RGB pictures; FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    if path.suffix != SUFFIX and path.suffix not in PICKLE_SUFFIXES:
        raise _failed(path, f"only {SUFFIX} files are loaded")
    read_weight_file(path)
    try:
        upscaler = _network(_unwrapped(load_file(path)), torch.device(device), dtype)
    except (SafetensorError, UnusableWeights) as error:
        reason = str(error) if isinstance(error, UnusableWeights) else "it is not a readable safetensors file"
        raise _failed(path, reason) from error
    if upscaler.scale < 2:
        raise _failed(path, "it does not enlarge")
    upscaler.name = f"reverie-{path.stem}" if _BUILT_IN.fullmatch(path.stem) else path.stem
    return upscaler


def load_upscalers(
    place: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> dict[int, Upscaler]:
    """The networks of a folder, or the one of a file, by their scale; of two with the same scale the first by name.

    A file called `x2.safetensors` goes before others of its scale.  The errors of `load_upscaler`, and
    `model_load_failed` where there is nothing.
    """
    files = [place] if place.is_file() else sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else []
    if not files:
        pickles = place.is_dir() and any(file.suffix in PICKLE_SUFFIXES for file in place.iterdir())
        if pickles or place.suffix in PICKLE_SUFFIXES:
            raise unsafe_checkpoint(place.name)
        raise _failed(place, f"there is no such file, or no folder with {SUFFIX} files in it")
    found: dict[int, Upscaler] = {}
    for path in sorted(files, key=lambda file: (_BUILT_IN.fullmatch(file.stem) is None, file.name)):
        upscaler = load_upscaler(path, device, dtype)
        found.setdefault(upscaler.scale, upscaler)
    return dict(sorted(found.items()))


def _network(weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> Upscaler:
    network: Network
    if is_esrgan(weights):
        weights = esrgan_weights(weights)
        network = esrgan_network(weights)
    elif is_compact(weights):
        network = compact_network(weights)
    else:
        return other_network(weights, device, dtype)
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        # A relative with more layers, which somebody else may know.
        return other_network(weights, device, dtype)
    return network.to(device=device, dtype=dtype).eval()


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if any(key.startswith(wrapper) for key in weights):
            return {k.removeprefix(wrapper): v for k, v in weights.items() if k.startswith(wrapper)}
    return weights


def _failed(path: Path, reason: str) -> ReverieError:
    return ReverieError(
        ErrorCode.MODEL_LOAD_FAILED, f"The super-resolution model {path.name} cannot be loaded: {reason}."
    )
