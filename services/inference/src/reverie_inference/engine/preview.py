"""Pictures of a job that is still running, made cheaply."""

from __future__ import annotations

import io
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
import torch
from PIL import Image

from reverie_inference.engine.finishing import decoded_picture, to_image
from reverie_inference.engine.sampling import Sampling
from reverie_inference.families.port import Family, LatentColours
from reverie_inference.models.loaded import LoadedModel

JPEG_QUALITY = 80
#: Flat patches that an autoencoder is asked for to learn what its channels look like, and their side in latents.
_PATCHES: Final = 48
_PATCH_SIDE: Final = 4

_measured: WeakKeyDictionary[LoadedModel, LatentColours] = WeakKeyDictionary()


class Preview(msgspec.Struct, frozen=True):
    """A JPEG of `width` x `height` pixels."""

    jpeg: bytes
    width: int
    height: int


@torch.inference_mode()
def make_preview(sampling: Sampling) -> Preview:
    """What the picture looks like now: at the autoencoder's size where decoding is cheap, else at the latents'."""
    latents = sampling.estimate()
    if _decodes_cheaply(sampling.model.pipeline.vae):
        image = to_image(decoded_picture(sampling.decode(latents)))
    else:
        colours = colours_of(sampling.model, sampling.family)
        image = to_image(decoded_picture(latent_colours(latents, colours)))
    return encode_preview_jpeg(image)


def colours_of(model: LoadedModel, family: Family) -> LatentColours:
    """The family's, else as the model's own autoencoder shows them."""
    if family.colours is not None:
        return family.colours
    if model not in _measured:
        _measured[model] = measure_colours(model, family)
    return _measured[model]


@torch.inference_mode()
def measure_colours(model: LoadedModel, family: Family) -> LatentColours:
    """The affine map that comes nearest to what the autoencoder makes of flat patches of latents."""
    generator = torch.Generator("cpu").manual_seed(0)
    channels = family.channels(model)
    values = torch.randn((_PATCHES, channels), generator=generator)
    patches = values[:, :, None, None].expand(-1, -1, _PATCH_SIDE, _PATCH_SIDE)
    decoded = family.decode(model, patches.to(model.device, model.pipeline.vae.dtype))
    seen = decoded.float().mean(dim=(2, 3)).nan_to_num().cpu()
    known = torch.cat([values, torch.ones(_PATCHES, 1)], dim=1)
    fitted = torch.linalg.lstsq(known, seen).solution.tolist()
    *factors, bias = (tuple(row) for row in fitted)
    return LatentColours(tuple(factors), bias)


def latent_colours(latents: torch.Tensor, colours: LatentColours) -> torch.Tensor:
    """[1, C, H, W] latents to [1, 3, H, W] about -1..1, one pixel per latent."""
    factors = torch.tensor(colours.factors, dtype=latents.dtype, device=latents.device)
    bias = torch.tensor(colours.bias, dtype=latents.dtype, device=latents.device)
    return torch.einsum("nchw,cr->nrhw", latents, factors) + bias[None, :, None, None]


def encode_preview_jpeg(image: Image.Image) -> Preview:
    """A picture as a small JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Preview(buffer.getvalue(), image.width, image.height)


def _decodes_cheaply(vae: Any) -> bool:
    return type(vae).__name__ == "AutoencoderTiny"
