"""What every training stage shares: a time-tied schedule, weight averaging, and checkpoints."""

import math
import os
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie_models.pictures import paint
from reverie_models.scenes import Scene


@dataclass(slots=True)
class Budget:
    """How long a stage may train, in seconds of wall time over all its runs."""

    seconds: float
    spent: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds used so far, earlier runs included."""
        return self.spent + time.monotonic() - self._started

    @property
    def share(self) -> float:
        """The used part of the budget, 0 to 1 (beyond 1 when overrun)."""
        return self.elapsed / self.seconds


def cosine_rate(peak: float, share: float, step: int, *, warm_up: int = 100) -> float:
    """The learning rate at `share` of the budget: linear warm-up, cosine decay to 1 %."""
    decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return peak * min(1.0, (step + 1) / warm_up) * decay


class Average:
    """An exponential moving average of parameters, quick at first and slow later."""

    def __init__(self, parameters: Iterable[nn.Parameter], slowest: float = 0.999) -> None:
        self._live = list(parameters)
        self.values = [parameter.detach().clone() for parameter in self._live]
        self._slowest = slowest

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the live parameters in after optimiser step `step`."""
        decay = min(self._slowest, (step + 1) / (step + 20))
        torch._foreach_lerp_(self.values, [p.detach() for p in self._live], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges live and averaged values; call it twice to return."""
        for live, mean in zip(self._live, self.values, strict=True):
            kept = live.detach().clone()
            live.copy_(mean)
            mean.copy_(kept)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The last checkpoint of a stage, or None before the first."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=training_device(), weights_only=True)
    return state


def pictures_of(scenes: Iterable[Scene], size: int = 64) -> Tensor:
    """Pictures of scenes as float [N, 3, size, size], 0 to 1."""
    pixels = np.stack([paint(scene, size) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)


class Run:
    """One stage's training of one model, which resumes from its checkpoint.

    `rate` follows a cosine over the stage's minutes, counted over all runs.
    """

    def __init__(
        self, path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, minutes: float
    ) -> None:
        self.step = 0
        self.budget = Budget(minutes * 60)
        self._path, self._model, self._optimiser = path, model, optimiser
        self._peak = optimiser.defaults["lr"]
        self.average = Average([p for group in optimiser.param_groups for p in group["params"]], 0.998)
        if state := load_checkpoint(path):
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            self.average.values = state["average"]
            self.step, self.budget.spent = state["step"], state["spent"]

    @property
    def over(self) -> bool:
        """Whether the stage's minutes are spent."""
        return self.budget.share >= 1

    def learn(self, loss: Tensor, largest_gradient: float = 1.0) -> None:
        """One optimiser step down the gradient of `loss`."""
        for group in self._optimiser.param_groups:
            group["lr"] = cosine_rate(self._peak, self.budget.share, self.step)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._model.parameters(), largest_gradient)
        self._optimiser.step()
        self.average.update(self.step)
        self.step += 1

    def save(self) -> None:
        """Writes the checkpoint."""
        state = {
            "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self.average.values,
            "step": self.step,
            "spent": self.budget.elapsed,
        }
        save_checkpoint(self._path, state)


def training_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_where_safe(device: torch.device) -> torch.autocast:
    """bfloat16 for convolutions and products, float32 for the rest."""
    return torch.autocast(device.type, torch.bfloat16)


def fresh_rng(seed: int, step: int) -> random.Random:
    """The random source of one training step; resuming continues the same sequence."""
    return random.Random(f"{seed}/{step}")


def psnr(picture: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per picture, of [N, 3, H, W] in 0 to 1."""
    error = (picture.clamp(0, 1) - truth).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error + 1e-10)
