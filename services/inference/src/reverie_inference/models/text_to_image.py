"""What a diffusers pipeline can do: who can run it, and the sizes it draws."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import msgspec

from reverie_inference.models.card import Size
from reverie_protocol.errors import ErrorCode, ReverieError


class Geometry(msgspec.Struct, frozen=True):
    """Native size of a pipeline and what the sides of its pictures must be divisible by, in pixels."""

    native_size: Size
    size_multiple: int


def require_own_loop(pipeline: Any, name: str) -> None:
    """`unsupported_model` if a pipeline's own loop makes no picture from text with steps we can watch."""
    parameters = inspect.signature(pipeline.__call__).parameters
    wanted = {"prompt", "num_inference_steps", "callback_on_step_end"}
    required = {key for key, value in parameters.items() if value.default is inspect.Parameter.empty}
    required -= {"prompt", "args", "kwargs"}
    if not wanted <= parameters.keys() or required or _takes_pictures(parameters):
        raise ReverieError(
            ErrorCode.UNSUPPORTED_MODEL,
            f"{name} is a {type(pipeline).__name__}, which is not a text-to-image pipeline with step callbacks.",
        )


def _takes_pictures(parameters: Any) -> bool:
    """Inpainting and image-to-image pipelines give their picture a default of None and then insist on it."""
    return any(name in parameters for name in ("image", "mask_image", "video"))


def has_known_unet(pipeline: Any) -> bool:
    """Whether the UNet takes the autoencoder's latents, and nothing beside them but a mask and a masked picture."""
    latents = pipeline.vae.config.latent_channels
    return draws_under_masks(pipeline) or bool(pipeline.unet.config.in_channels == latents)


def draws_under_masks(pipeline: Any) -> bool:
    """Whether the UNet is one made for inpainting: it takes a mask and the masked picture's latents too."""
    unet, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if unet is None or vae is None:
        return False
    return bool(unet.config.in_channels == 2 * vae.config.latent_channels + 1)


def in_engine_shape(pipeline: Any) -> Any:
    """An inpainting pipeline as its family's text-to-image one, which the engine runs; others unchanged."""
    if type(pipeline) is diffusers.StableDiffusionInpaintPipeline:
        return diffusers.StableDiffusionPipeline(**pipeline.components, requires_safety_checker=False)
    if type(pipeline) is diffusers.StableDiffusionXLInpaintPipeline:
        if pipeline.config.requires_aesthetics_score:
            return pipeline
        zeros = pipeline.config.force_zeros_for_empty_prompt
        return diffusers.StableDiffusionXLPipeline(**pipeline.components, force_zeros_for_empty_prompt=zeros)
    return pipeline


def pipeline_geometry(pipeline: Any) -> Geometry:
    """Sizes from the denoiser's own configuration, times the autoencoder's factor."""
    factor = int(getattr(pipeline, "vae_scale_factor", 8))
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    config = getattr(denoiser, "config", {})
    sample = config.get("sample_size") or getattr(pipeline, "default_sample_size", None) or 64
    height, width = (sample, sample) if isinstance(sample, int) else sample
    multiple = factor * int(config.get("patch_size") or 1)
    return Geometry((width * factor, height * factor), multiple)
