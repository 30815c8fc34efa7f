"""One job of a family the engine knows: it owns its latents, scheduler, generator and step index.

Nothing is shared between jobs but the weights, so a job may be left alone between two steps for as long as one
likes, and gives the same bits; what sharing an evaluation changes is said in `evaluation`.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from math import ceil
from typing import Any

import torch

from reverie_inference.engine.checkpoint import (
    State,
    UnusableCheckpoint,
    decode_state,
    encode_state,
    fitting,
    restore_scheduler,
    scheduler_state,
)
from reverie_inference.engine.first_noise import first_noise
from reverie_inference.engine.init_image import Origin
from reverie_inference.engine.request import Request
from reverie_inference.families.port import Conditioning
from reverie_inference.families.registry import families
from reverie_inference.models.loaded import LoadedModel


class StepsRefused(Exception):
    """A scheduler does not take the number of steps that was asked for."""


class Sampling:
    """The diffusion of one picture, from noise (or from another picture) to latents.

    `begin` once; then for each step the network's answer to `network_input` goes to `accept`, until `done`;
    `estimate` and `decode` at any time after the first step.
    """

    def __init__(self, model: LoadedModel, request: Request) -> None:
        self.model = model
        self.family = families()[model.family]
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
        self._input: torch.Tensor
        self._seen: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._begun: dict[str, Any] = {}

    @torch.inference_mode()
    def begin(self, conditioning: Conditioning) -> None:
        """Draw the first latents.  StepsRefused if the scheduler does not take so many steps."""
        model, scheduler, request = self.model, self._scheduler, self._request
        self._conditioning = conditioning
        try:
            self.family.set_timesteps(model, scheduler, request.steps, request.plan.drawn)
        except ValueError as error:
            raise StepsRefused(str(error)) from error
        dtype = conditioning.dtype
        self._step_options = self._options_of_step()
        if self._origin is not None:
            self._timesteps = self._origin.timesteps(request.steps)
            self._latents = self._origin.first_latents(dtype)
        else:
            self._timesteps = scheduler.timesteps
            shape = self.family.latent_shape(model, request.plan.drawn)
            noise = first_noise(request, shape, self._generator, device=model.device, dtype=dtype)
            self._latents = noise * self.family.first_noise_scale(scheduler)
            self.family.begin(scheduler)
        self._begun = dict(vars(scheduler))

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
    def seen(self) -> bool:
        """Whether there is an estimate: not before the first step, nor between a checkpoint and the next one."""
        return self.done or self._seen is not None

    @property
    def steps(self) -> int:
        """Steps to take: fewer than were asked for where the picture starts from another one."""
        start = self._request.start
        return self._request.steps if start is None else start.steps

    @property
    def rows(self) -> int:
        """Rows that it takes of a batch."""
        return self._conditioning.count

    @property
    def latents(self) -> torch.Tensor:
        """[1, C, H, W], as far as they are."""
        return self._latents

    @property
    def alike(self) -> Hashable:
        """What must be equal for two jobs of one model to share an evaluation of the network."""
        shape, dtype = self._latents.shape, self._latents.dtype
        return (shape, dtype, self._conditioning.shapes)

    @property
    def conditioning(self) -> dict[str, torch.Tensor]:
        """What the network is told beside latents and timestep, each [rows, ...]."""
        return self._conditioning.rows

    def network_input(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [rows, C, H, W] as the network wants to see them, and the timestep, a scalar."""
        timestep = self._timesteps[self._index]
        doubled = torch.cat([self._latents] * 2) if self._conditioning.guided else self._latents
        self._input = self.family.scaled(self._scheduler, doubled, timestep)
        return (self._input if self._origin is None else self._origin.unet_input(self._input)), timestep

    @torch.inference_mode()
    def accept(self, predicted: torch.Tensor) -> None:
        """Take one step by what the network said to the last `network_input`, [rows, C, H, W]."""
        timestep, latents = self._timesteps[self._index], self._latents
        if self._conditioning.guided:
            negative, positive = predicted.chunk(2)
            predicted = negative + self._request.guidance * (positive - negative)
        stepped = self._scheduler.step(predicted, timestep, latents, **self._step_options, return_dict=False)
        following = stepped[0]
        if self._origin is not None:
            following = self._origin.restored(following, self._index)
        self._latents = following
        self._seen = (self._input[-1:], predicted, timestep)
        self._index += 1

    def checkpoint(self) -> bytes:
        """All that the steps until now have made of it."""
        state = State(
            index=self._index,
            latents=self._latents,
            generator=self._generator.get_state(),
            scheduler=scheduler_state(self._scheduler, self._begun),
        )
        return encode_state(state, fits=fitting(self._request))

    @torch.inference_mode()
    def restore(self, checkpoint: bytes) -> None:
        """After `begin`, go on from where a checkpoint was made; UnusableCheckpoint, and nothing has changed."""
        device = self.model.device
        state = decode_state(checkpoint, fits=fitting(self._request), device=device)
        if state.latents.shape != self._latents.shape or not 0 < state.index <= len(self._timesteps):
            raise UnusableCheckpoint("its size is another")
        try:
            self._generator.set_state(state.generator)
        except (RuntimeError, TypeError) as error:
            raise UnusableCheckpoint("its generator is another") from error
        self._index, self._latents = state.index, state.latents.to(self._latents.dtype)
        restore_scheduler(self._scheduler, state.scheduler, device)

    @torch.inference_mode()
    def estimate(self) -> torch.Tensor:
        """What the latents [1, C, H, W] look like without their remaining noise, by the last prediction."""
        if self.done:
            return self._latents
        if self._seen is None:
            raise RuntimeError("there is no estimate before the first step")
        return self.family.estimate(self._scheduler, *self._seen)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor | None = None) -> torch.Tensor:
        """Picture of the latents [1, 3, H, W], values about -1..1."""
        return self.family.decode(self.model, self._latents if latents is None else latents, self._generator)

    def _options_of_step(self) -> dict[str, Any]:
        """`eta` and `generator` for the schedulers that take them."""
        accepted = inspect.signature(self._scheduler.step).parameters
        options: dict[str, Any] = {"eta": 0.0, "generator": self._generator}
        return {key: value for key, value in options.items() if key in accepted}
