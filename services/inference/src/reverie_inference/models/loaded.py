"""A model in memory: its pipeline and what it does when a request leaves something open."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from reverie_inference.models.adapters import Adapters
from reverie_inference.models.card import Size as Size  # noqa: PLC0414  # sizes of models are asked for here
from reverie_inference.models.digest import weights_digest
from reverie_inference.models.encodings import Encodings


@dataclass(frozen=True, eq=False)  # one is another only if it is the same
class LoadedModel:
    """A pipeline on its device.

    `family` names who runs it: a family of the step engine (`sd15`, `sdxl`, `sd3`, …), or the pipeline's own loop
    (`callback`).
    `size_multiple` is in pixels: what both sides of a picture must be divisible by.
    """

    pipeline: Any
    family: str
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

    @cached_property
    def adapters(self) -> Adapters:
        """The LoRAs on this pipeline."""
        return Adapters(self.pipeline)

    @cached_property
    def encodings(self) -> Encodings:
        """Prompts that were encoded before."""
        return Encodings()

    @cached_property
    def digest(self) -> str:
        """Names its weights, on whatever machine."""
        return weights_digest(self.reference)

    @property
    def scheduler(self) -> str:
        """Class name of the scheduler that the model brings."""
        return type(self.pipeline.scheduler).__name__
