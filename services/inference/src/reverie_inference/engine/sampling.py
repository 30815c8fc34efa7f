"""One job of a family the engine knows: it owns its latents, scheduler, generator and step index.

Nothing is shared between jobs but the weights, so a job gives the same bits whatever runs beside it, and may be
left alone between two steps for as long as one likes.
"""

from __future__ import annotations

import inspect
from math import ceil
from typing import Any

import torch

from reverie_inference.engine.families import Conditioning, decode_latents, encode_prompt
from reverie_inference.engine.init_image import Origin
from reverie_inference.engine.request import Request
from reverie_inference.models.loaded import LoadedModel

_LEAST_ALPHA = 1e-4


class Sampling:
    """The diffusion of one picture, from noise (or from another picture) to latents.

    `begin` once, then `advance` until `done`; `estimate` and `decode` at any time after the first step.
    """

    def __init__(self, model: LoadedModel, request: Request) -> None:
        self._model = model
        self._request = request
        self._scheduler = request.scheduler
        self._generator = torch.Generator("cpu").manual_seed(request.seed)
        self._conditioning: Conditioning
        self._latents: torch.Tensor
        self._timesteps: torch.Tensor
        self._step_options: dict[str, Any] = {}
        self._origin: Origin | None = None
        if request.start is not None:
            self._origin = Origin(model, request.start, request.scheduler, self._generator)
        self._index = 0
        self._seen: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @torch.inference_mode()
    def begin(self) -> None:
        """Encode the prompt and draw the first latents.  ValueError if the scheduler refuses the steps."""
        model, scheduler = self._model, self._scheduler
        self._conditioning = encode_prompt(model, self._request)
        scheduler.set_timesteps(self._request.steps, device=model.device)
        dtype = self._conditioning.embeds.dtype
        self._step_options = self._options_of_step()
        if self._origin is not None:
            self._timesteps = self._origin.timesteps(self._request.steps)
            self._latents = self._origin.first_latents(dtype)
            return
        self._timesteps = scheduler.timesteps
        self._latents = self._first_latents(dtype)
        if model.family == "sdxl" and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)

    @property
    def done(self) -> bool:
        """Whether every step is taken."""
        return self._index == len(self._timesteps)

    @property
    def step(self) -> int:
        """Steps taken, as the user counts them.

        Second-order schedulers evaluate the network up to twice a step, so evaluations are scaled to steps.
        """
        return ceil(self._index * self.steps / len(self._timesteps)) if self._index else 0

    @property
    def steps(self) -> int:
        """Steps to take: fewer than were asked for where the picture starts from another one."""
        start = self._request.start
        return self._request.steps if start is None else start.steps

    @torch.inference_mode()
    def advance(self) -> None:
        """Take one denoising step: one evaluation of the network, one step of the scheduler."""
        conditioning, scheduler = self._conditioning, self._scheduler
        timestep = self._timesteps[self._index]
        latents = self._latents
        model_input = torch.cat([latents] * 2) if conditioning.guided else latents
        model_input = scheduler.scale_model_input(model_input, timestep)
        predicted = self._model.pipeline.unet(
            model_input if self._origin is None else self._origin.unet_input(model_input),
            timestep,
            encoder_hidden_states=conditioning.embeds,
            cross_attention_kwargs=None,
            return_dict=False,
            **conditioning.arguments,
        )[0]
        if conditioning.guided:
            negative, positive = predicted.chunk(2)
            predicted = negative + self._request.guidance * (positive - negative)
        stepped = scheduler.step(predicted, timestep, latents, **self._step_options, return_dict=False)[0]
        if self._origin is not None:
            stepped = self._origin.restored(stepped, self._index)
        self._latents = stepped
        self._seen = (model_input[-1:], predicted, timestep)
        self._index += 1

    @torch.inference_mode()
    def estimate(self) -> torch.Tensor:
        """What the latents [1, C, H, W] look like without their remaining noise, by the last prediction."""
        if self._seen is None:
            raise RuntimeError("there is no estimate before the first step")
        if self.done:
            return self._latents
        sample, predicted, timestep = self._seen
        kind: str = self._scheduler.config.prediction_type
        if kind == "sample":
            return predicted
        # What the network sees is always sqrt(a) x0 + sqrt(1 - a) noise, however the scheduler scales its own
        # sample, so this one formula serves all of them (timesteps may be fractional).
        alpha = _alpha(self._scheduler.alphas_cumprod, float(timestep))
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        if kind == "v_prediction":
            estimated: torch.Tensor = signal * sample - noise * predicted
        else:
            estimated = (sample - noise * predicted) / signal
        return estimated

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor | None = None) -> torch.Tensor:
        """Picture of the latents [1, 3, H, W], values about -1..1."""
        return decode_latents(self._model, self._latents if latents is None else latents, self._generator)

    def _first_latents(self, dtype: torch.dtype) -> torch.Tensor:
        """Noise of the job's seed, drawn on the CPU so that every device gets the same."""
        from diffusers.utils.torch_utils import randn_tensor

        pipeline = self._model.pipeline
        width, height = self._request.plan.drawn
        factor = pipeline.vae_scale_factor
        shape = (1, pipeline.unet.config.in_channels, height // factor, width // factor)
        noise: torch.Tensor = randn_tensor(
            shape, generator=self._generator, device=self._model.device, dtype=dtype
        )
        latents: torch.Tensor = noise * self._scheduler.init_noise_sigma
        return latents

    def _options_of_step(self) -> dict[str, Any]:
        """`eta` and `generator` for the schedulers that take them."""
        accepted = inspect.signature(self._scheduler.step).parameters
        options: dict[str, Any] = {"eta": 0.0, "generator": self._generator}
        return {key: value for key, value in options.items() if key in accepted}


def _alpha(alphas_cumprod: torch.Tensor, timestep: float) -> float:
    """Signal part at a timestep, between two whole ones by interpolation."""
    below = min(max(int(timestep), 0), len(alphas_cumprod) - 1)
    above = min(below + 1, len(alphas_cumprod) - 1)
    part = min(max(timestep - below, 0.0), 1.0)
    alpha = float(alphas_cumprod[below]) * (1 - part) + float(alphas_cumprod[above]) * part
    return max(alpha, _LEAST_ALPHA)
