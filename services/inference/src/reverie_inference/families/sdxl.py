"""Stable Diffusion XL, computed as diffusers' own pipeline does, bit for bit.

Source of the order of operations: `StableDiffusionXLPipeline.__call__` of diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch

from reverie_inference.families.decoding import decode_surely
from reverie_inference.families.port import Asked, Conditioning, LatentColours, one_each
from reverie_inference.families.sd15 import UNetFamily, distilled_guidance, negative_prompts
from reverie_inference.models.loaded import LoadedModel, Size
from reverie_inference.models.text_to_image import has_known_unet


class StableDiffusionXL(UNetFamily):
    """Two text encoders, and pooled text and sizes beside them."""

    name = "sdxl"
    default_guidance = 5.0
    # T. A. Vass, "Explaining the SDXL latent space" (https://huggingface.co/blog/TimothyAlexisVass/
    # explaining-the-sdxl-latent-space), there in 0..255 around 150, 140 and 130; here
    # divided by 127.5 and moved by -1.
    colours = LatentColours(
        ((0.471, 0.471, 0.471), (-0.471, -0.039, 0.078), (0.196, 0.118, -0.039), (-0.549, -0.392, -0.275)),
        (0.176, 0.098, 0.020),
    )

    def runs(self, pipeline: Any) -> bool:
        """See `Family.runs`."""
        return type(pipeline) is diffusers.StableDiffusionXLPipeline and has_known_unet(pipeline)

    def begin(self, scheduler: Any) -> None:
        """See `Family.begin`."""
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)

    def encode(self, model: LoadedModel, asked: Sequence[Asked]) -> list[Conditioning]:
        """See `Family.encode`."""
        guided = self.guided(model, asked[0].guidance)
        positive, negative, pooled, negative_pooled = model.pipeline.encode_prompt(
            prompt=[one.prompt for one in asked],
            device=model.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
            negative_prompt=negative_prompts(asked),
        )
        made = []
        for index, one in enumerate(asked):
            times = _time_ids(model, one.drawn, pooled, positive.dtype)
            rows = {
                "encoder_hidden_states": one_each((negative, positive), index, guided=guided),
                "text_embeds": one_each((negative_pooled, pooled), index, guided=guided),
                "time_ids": torch.cat([times, times]) if guided else times,
            }
            rows = {name: row.to(model.device) for name, row in rows.items()}
            made.append(Conditioning(rows | distilled_guidance(model, one, positive.dtype), guided))
        return made

    def decode(
        self, model: LoadedModel, latents: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """See `Family.decode`; XL's autoencoder overflows in half precision, so it decodes in single."""
        pipeline = model.pipeline
        return decode_surely(pipeline.vae, latents, lambda values: _decode(pipeline, values))


def _time_ids(model: LoadedModel, drawn: Size, pooled: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Original size, crop and target size as the network takes them, [1, 6]."""
    width, height = drawn
    encoder = model.pipeline.text_encoder_2
    times: torch.Tensor = model.pipeline._get_add_time_ids(
        (height, width),
        (0, 0),
        (height, width),
        dtype=dtype,
        text_encoder_projection_dim=(
            int(pooled.shape[-1]) if encoder is None else encoder.config.projection_dim
        ),
    )
    return times


def _decode(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
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
