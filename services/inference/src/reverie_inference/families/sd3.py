"""Stable Diffusion 3: a transformer that matches flows, computed as diffusers' own pipeline does, bit for bit.

Source of the order of operations: `StableDiffusion3Pipeline.__call__` of diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch

from reverie_inference.families.decoding import decode_surely
from reverie_inference.families.port import Asked, Conditioning, Family, one_each
from reverie_inference.families.sd15 import negative_prompts
from reverie_inference.models.loaded import LoadedModel, Size

#: Training timesteps from pure noise to the picture.
_WHOLE = 1000.0


class StableDiffusion3(Family):
    """Two or three text encoders, one transformer."""

    name = "sd3"
    default_guidance = 7.0

    def runs(self, pipeline: Any) -> bool:
        """See `Family.runs`."""
        return type(pipeline) is diffusers.StableDiffusion3Pipeline

    def channels(self, model: LoadedModel) -> int:
        """See `Family.channels`."""
        channels: int = model.pipeline.transformer.config.in_channels
        return channels

    def set_timesteps(self, model: LoadedModel, scheduler: Any, steps: int, drawn: Size) -> None:
        """See `Family.set_timesteps`; some schedules shift with the picture's size."""
        config = scheduler.config
        if not config.get("use_dynamic_shifting", None):
            scheduler.set_timesteps(steps, device=model.device)
            return
        _, _, height, width = self.latent_shape(model, drawn)
        patch = model.pipeline.transformer.config.patch_size
        tokens = (height // patch) * (width // patch)
        least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.16)
        slope = (top - base) / (most - least)
        scheduler.set_timesteps(steps, device=model.device, mu=tokens * slope + (base - slope * least))

    def first_noise_scale(self, scheduler: Any) -> float:
        """See `Family.first_noise_scale`: a flow begins at plain noise."""
        return 1.0

    def scaled(self, scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """See `Family.scaled`: as they are."""
        return latents

    def encode(self, model: LoadedModel, asked: Sequence[Asked]) -> list[Conditioning]:
        """See `Family.encode`."""
        guided = self.guided(model, asked[0].guidance)
        prompts = [one.prompt for one in asked]
        positive, negative, pooled, negative_pooled = model.pipeline.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_3=None,
            negative_prompt=negative_prompts(asked),
            do_classifier_free_guidance=guided,
            device=model.device,
            num_images_per_prompt=1,
        )
        return [
            Conditioning(
                {
                    "encoder_hidden_states": one_each((negative, positive), index, guided=guided),
                    "pooled_projections": one_each((negative_pooled, pooled), index, guided=guided),
                },
                guided,
            )
            for index in range(len(asked))
        ]

    def predict(
        self,
        model: LoadedModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        rows: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """See `Family.predict`."""
        predicted: torch.Tensor = model.pipeline.transformer(
            hidden_states=latents, timestep=timesteps, **rows, return_dict=False
        )[0]
        return predicted

    def estimate(
        self, scheduler: Any, sample: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """See `Family.estimate`: what the network says is the direction from picture to noise."""
        return sample - float(timestep) / _WHOLE * predicted

    def decode(
        self, model: LoadedModel, latents: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """See `Family.decode`."""
        vae = model.pipeline.vae

        def decode(values: torch.Tensor) -> torch.Tensor:
            scaled = values / vae.config.scaling_factor + vae.config.shift_factor
            decoded: torch.Tensor = vae.decode(scaled, return_dict=False)[0]
            return decoded

        return decode_surely(vae, latents, decode)
