"""A model in memory: its pipeline and what it does when a request leaves something open."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

Size = tuple[int, int]  # width, height in pixels
Family = Literal["sd15", "sdxl", "callback"]


class ModelCard(msgspec.Struct, frozen=True):
    """`reverie.json` beside a model: its mode's name, native size and defaults.

    `native_size` is what the network draws; a larger `default_size` is reached by super-resolution with the
    weights in `super_resolution`, a folder relative to the card.
    """

    mode: str | None = None
    native_size: Size | None = None
    default_size: Size | None = None
    default_steps: int | None = None
    default_guidance: float | None = None
    super_resolution: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline on its device.

    `family` says who runs it: the step engine (`sd15`, `sdxl`), or the pipeline's own loop (`callback`).
    `size_multiple` is in pixels: what both sides of a picture must be divisible by.
    """

    pipeline: Any
    family: Family
    mode: str
    reference: str
    device: torch.device
    dtype: torch.dtype
    native_size: Size
    default_size: Size
    default_steps: int
    default_guidance: float
    size_multiple: int
    #: Whether pictures beyond `native_size` come from super-resolution and not from larger latents.
    native_only: bool = False
    upscaler_weights: dict[int, Path] = field(default_factory=dict)

    @property
    def scheduler(self) -> str:
        """Class name of the scheduler that the model brings."""
        return type(self.pipeline.scheduler).__name__
