"""Pictures of a job that is still running, made cheaply."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import torch
from PIL import Image

from reverie_inference.engine.finishing import decoded_picture, to_image
from reverie_inference.engine.sampling import Sampling
from reverie_inference.models.loaded import LoadedModel

JPEG_QUALITY = 80


class Preview(msgspec.Struct, frozen=True):
    """A JPEG of `width` x `height` pixels."""

    jpeg: bytes
    width: int
    height: int


class LatentColours(msgspec.Struct, frozen=True):
    """An affine map from four latent channels to red, green and blue in -1..1."""

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


# Fitted by the user keturn: https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204
SD15_COLOURS = LatentColours(
    ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
    (0.0, 0.0, 0.0),
)
# T. A. Vass, "Explaining the SDXL latent space" (https://huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-
# latent-space), there in 0..255 around 150, 140 and 130; here divided by 127.5 and moved by -1.
SDXL_COLOURS = LatentColours(
    ((0.471, 0.471, 0.471), (-0.471, -0.039, 0.078), (0.196, 0.118, -0.039), (-0.549, -0.392, -0.275)),
    (0.176, 0.098, 0.020),
)


@torch.inference_mode()
def make_preview(model: LoadedModel, sampling: Sampling) -> Preview:
    """What the picture looks like now: at the autoencoder's size where decoding is cheap, else at the latents'."""
    latents = sampling.estimate()
    if _decodes_cheaply(model.pipeline.vae):
        image = to_image(decoded_picture(sampling.decode(latents)))
    else:
        colours = SDXL_COLOURS if model.family == "sdxl" else SD15_COLOURS
        image = to_image(decoded_picture(latent_colours(latents, colours)))
    return encode_preview_jpeg(image)


def latent_colours(latents: torch.Tensor, colours: LatentColours) -> torch.Tensor:
    """[1, 4, H, W] latents to [1, 3, H, W] about -1..1, one pixel per latent."""
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
