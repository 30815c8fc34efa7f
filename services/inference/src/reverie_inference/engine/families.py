"""The two families that the step engine runs itself, computed as diffusers' own pipelines do, bit for bit.

Source of the order of operations: `StableDiffusionPipeline.__call__` and `StableDiffusionXLPipeline.__call__` of
diffusers 0.42.
"""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
import torch

from reverie_inference.engine.request import Request
from reverie_inference.models.loaded import LoadedModel

log = structlog.get_logger(__name__)


class Conditioning(msgspec.Struct, frozen=True):
    """What the UNet is told beside latents and timestep; with guidance the negative half comes first.

    `embeds` is [1 or 2, tokens, width]; `arguments` are further keyword arguments of the UNet.
    """

    embeds: torch.Tensor
    arguments: dict[str, Any]
    guided: bool


def encode_prompt(model: LoadedModel, request: Request) -> Conditioning:
    """Run the text encoders."""
    pipeline = model.pipeline
    # Distilled models (LCM) take the guidance scale as an input instead of a second forward pass.
    distilled = pipeline.unet.config.time_cond_proj_dim is not None
    guided = request.guidance > 1 and not distilled
    if model.family == "sdxl":
        embeds, added = _encode_sdxl(model, request, guided)
    else:
        positive, negative = pipeline.encode_prompt(
            request.prompt, model.device, 1, guided, request.negative_prompt
        )
        embeds = torch.cat([negative, positive]) if guided else positive
        added = None
    guidance = None
    if distilled:
        scale = torch.tensor(request.guidance - 1).repeat(1)
        guidance = pipeline.get_guidance_scale_embedding(
            scale, embedding_dim=pipeline.unet.config.time_cond_proj_dim
        ).to(device=model.device, dtype=embeds.dtype)
    return Conditioning(embeds, {"added_cond_kwargs": added, "timestep_cond": guidance}, guided)


def _encode_sdxl(
    model: LoadedModel, request: Request, guided: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Embeddings, and the pooled text and sizes that XL is conditioned on beside them."""
    pipeline = model.pipeline
    positive, negative, pooled, negative_pooled = pipeline.encode_prompt(
        prompt=request.prompt,
        device=model.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        negative_prompt=request.negative_prompt,
    )
    width, height = request.plan.drawn
    encoder = pipeline.text_encoder_2
    times = pipeline._get_add_time_ids(
        (height, width),
        (0, 0),
        (height, width),
        dtype=positive.dtype,
        text_encoder_projection_dim=(
            int(pooled.shape[-1]) if encoder is None else encoder.config.projection_dim
        ),
    )
    embeds, texts = positive, pooled
    if guided:
        embeds = torch.cat([negative, positive], dim=0)
        texts = torch.cat([negative_pooled, pooled], dim=0)
        times = torch.cat([times, times], dim=0)
    device = model.device
    return embeds.to(device), {"text_embeds": texts.to(device), "time_ids": times.to(device)}


def decode_latents(
    model: LoadedModel, latents: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Pictures of latents: [N, 3, H, W], values about -1..1, in the autoencoder's precision.

    An autoencoder that overflows in half precision decodes once more in single.
    """
    vae = model.pipeline.vae
    decoded = _decode(model, latents, generator)
    if vae.dtype == torch.float32 or bool(torch.isfinite(decoded).all()):
        return decoded
    dtype = vae.dtype
    log.warning("autoencoder_overflowed", dtype=str(dtype))
    vae.to(torch.float32)
    try:
        return _decode(model, latents.float(), generator)
    finally:
        vae.to(dtype)


def _decode(model: LoadedModel, latents: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    if model.family == "sdxl":
        return _decode_sdxl(model.pipeline, latents)
    vae = model.pipeline.vae
    scaled = latents / vae.config.scaling_factor
    decoded: torch.Tensor = vae.decode(scaled, return_dict=False, generator=generator)[0]
    return decoded


def _decode_sdxl(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """XL's autoencoder overflows in half precision, so it decodes in single."""
    vae = pipeline.vae
    upcast = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:
        pipeline.upcast_vae()
        latents = latents.to(next(iter(vae.post_quant_conv.parameters())).dtype)
    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is not None and std is not None:
        shift = torch.tensor(mean).view(1, -1, 1, 1).to(latents.device, latents.dtype)
        scale = torch.tensor(std).view(1, -1, 1, 1).to(latents.device, latents.dtype)
        latents = latents * scale / vae.config.scaling_factor + shift
    else:
        latents = latents / vae.config.scaling_factor
    decoded: torch.Tensor = vae.decode(latents, return_dict=False)[0]
    if upcast:
        vae.to(dtype=torch.float16)
    return decoded
