"""What a diffusers pipeline can do: who can run it, and the sizes it draws."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import msgspec

from reverie_inference.models.loaded import Family, Size
from reverie_protocol.errors import ErrorCode, ReverieError


class Geometry(msgspec.Struct, frozen=True):
    """Native size of a pipeline and what the sides of its pictures must be divisible by, in pixels."""

    native_size: Size
    size_multiple: int


def pipeline_family(pipeline: Any, name: str) -> Family:
    """Who runs this pipeline; `unsupported_model` if it makes no picture from text with steps we can watch."""
    if type(pipeline) is diffusers.StableDiffusionPipeline and _plain_unet(pipeline):
        return "sd15"
    if type(pipeline) is diffusers.StableDiffusionXLPipeline and _plain_unet(pipeline):
        return "sdxl"
    parameters = inspect.signature(pipeline.__call__).parameters
    wanted = {"prompt", "num_inference_steps", "callback_on_step_end"}
    required = {key for key, value in parameters.items() if value.default is inspect.Parameter.empty}
    required -= {"prompt", "args", "kwargs"}
    if not wanted <= parameters.keys() or required or _takes_pictures(parameters):
        raise ReverieError(
            ErrorCode.UNSUPPORTED_MODEL,
            f"{name} is a {type(pipeline).__name__}, which is not a text-to-image pipeline with step callbacks.",
        )
    return "callback"


def _takes_pictures(parameters: Any) -> bool:
    """Inpainting and image-to-image pipelines give their picture a default of None and then insist on it."""
    return any(name in parameters for name in ("image", "mask_image", "video"))


def _plain_unet(pipeline: Any) -> bool:
    """Whether the UNet takes the autoencoder's latents and nothing beside them (inpainting adds a mask, say)."""
    return bool(pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels)


def pipeline_geometry(pipeline: Any) -> Geometry:
    """Sizes from the denoiser's own configuration, times the autoencoder's factor."""
    factor = int(getattr(pipeline, "vae_scale_factor", 8))
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    config = getattr(denoiser, "config", {})
    sample = config.get("sample_size") or getattr(pipeline, "default_sample_size", None) or 64
    height, width = (sample, sample) if isinstance(sample, int) else sample
    multiple = factor * int(config.get("patch_size") or 1)
    return Geometry((width * factor, height * factor), multiple)
