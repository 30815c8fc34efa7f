"""Stable Diffusion 1.x and 2.x, computed as diffusers' own pipeline does, bit for bit.

Source of the order of operations: `StableDiffusionPipeline.__call__` of diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch

from reverie_inference.families.decoding import decode_surely
from reverie_inference.families.port import Asked, Conditioning, Family, LatentColours, one_each
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.text_to_image import has_known_unet


class UNetFamily(Family):
    """What families with a UNet have in common."""

    starts_from_pictures = True

    def guided(self, model: LoadedModel, guidance: float) -> bool:
        """See `Family.guided`; distilled models (LCM) take the scale as an input instead."""
        return guidance > 1 and not is_distilled(model)

    def channels(self, model: LoadedModel) -> int:
        """See `Family.channels`."""
        channels: int = model.pipeline.vae.config.latent_channels
        return channels

    def predict(
        self,
        model: LoadedModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        rows: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """See `Family.predict`."""
        added = {name: rows[name] for name in ("text_embeds", "time_ids") if name in rows}
        predicted: torch.Tensor = model.pipeline.unet(
            latents,
            timesteps,
            encoder_hidden_states=rows["encoder_hidden_states"],
            timestep_cond=rows.get("timestep_cond"),
            cross_attention_kwargs=None,
            added_cond_kwargs=added or None,
            return_dict=False,
        )[0]
        return predicted


class StableDiffusion(UNetFamily):
    """One text encoder, one UNet."""

    name = "sd15"
    default_guidance = 7.5
    # Fitted by the user keturn:
    # https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204
    colours = LatentColours(
        ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
        (0.0, 0.0, 0.0),
    )

    def runs(self, pipeline: Any) -> bool:
        """See `Family.runs`."""
        return type(pipeline) is diffusers.StableDiffusionPipeline and has_known_unet(pipeline)

    def encode(self, model: LoadedModel, asked: Sequence[Asked]) -> list[Conditioning]:
        """See `Family.encode`."""
        guided = self.guided(model, asked[0].guidance)
        positive, negative = model.pipeline.encode_prompt(
            [one.prompt for one in asked], model.device, 1, guided, negative_prompts(asked)
        )
        return [
            Conditioning(
                {
                    "encoder_hidden_states": one_each((negative, positive), index, guided=guided),
                    **distilled_guidance(model, one, positive.dtype),
                },
                guided,
            )
            for index, one in enumerate(asked)
        ]

    def decode(
        self, model: LoadedModel, latents: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """See `Family.decode`."""
        vae = model.pipeline.vae

        def decode(values: torch.Tensor) -> torch.Tensor:
            scaled = values / vae.config.scaling_factor
            decoded: torch.Tensor = vae.decode(scaled, return_dict=False, generator=generator)[0]
            return decoded

        return decode_surely(vae, latents, decode)


def negative_prompts(asked: Sequence[Asked]) -> list[str] | None:
    """Those of requests that all have one, or all have none."""
    if asked[0].negative_prompt is None:
        return None
    return [one.negative_prompt or "" for one in asked]


def is_distilled(model: LoadedModel) -> bool:
    """Whether the UNet takes the guidance scale as an input (LCM)."""
    return model.pipeline.unet.config.time_cond_proj_dim is not None


def distilled_guidance(model: LoadedModel, asked: Asked, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The guidance scale as a distilled UNet takes it; nothing for others."""
    if not is_distilled(model):
        return {}
    scale = torch.tensor(asked.guidance - 1).repeat(1)
    embedding = model.pipeline.get_guidance_scale_embedding(
        scale, embedding_dim=model.pipeline.unet.config.time_cond_proj_dim
    )
    return {"timestep_cond": embedding.to(device=model.device, dtype=dtype)}
