"""What the step engine must know of a family of models to run many jobs of it at once.

A family of one's own is a subclass of `Family`, named by an entry point of the group `reverie.families`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import torch

from reverie_inference.models.loaded import LoadedModel, Size

_LEAST_ALPHA = 1e-4


class Asked(msgspec.Struct, frozen=True):
    """What the text encoders are asked for one job; `drawn` is the size that the network draws, in pixels."""

    prompt: str
    negative_prompt: str | None
    guidance: float
    drawn: Size


class Conditioning(msgspec.Struct, frozen=True):
    """What the network is told of one job beside latents and timestep: tensors [1 or 2, ...] by argument.

    A guided job has two rows, the negative one first.  Latents get the precision of the first tensor.
    """

    rows: dict[str, torch.Tensor]
    guided: bool

    @property
    def count(self) -> int:
        """Rows that the job takes of a batch."""
        return 2 if self.guided else 1

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the job's latents."""
        return next(iter(self.rows.values())).dtype

    @property
    def shapes(self) -> tuple[tuple[str, torch.Size, torch.dtype], ...]:
        """What must be alike for two jobs to share a batch."""
        return tuple((name, row.shape[1:], row.dtype) for name, row in sorted(self.rows.items()))

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(row.nbytes for row in self.rows.values())


class LatentColours(msgspec.Struct, frozen=True):
    """An affine map from latent channels to red, green and blue in -1..1."""

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


class Family(ABC):
    """The computations of one family.  Stateless: everything of a job is with the job.

    R counts rows of a batch (two for a guided job), N pictures; latents are [R or N, C, H, W].
    """

    name: ClassVar[str]
    #: Classes of pipelines that diffusers does not have; what a folder's model_index.json names of them is loaded.
    pipelines: ClassVar[tuple[type, ...]] = ()
    #: Guidance scale of models that bring none; None leaves it to the pipeline's own default.
    default_guidance: ClassVar[float | None] = None
    #: Whether the engine starts its pictures from other ones; if not, the pipeline's own loop does.
    starts_from_pictures: ClassVar[bool] = False
    #: None lets them be measured on the model's own autoencoder.
    colours: ClassVar[LatentColours | None] = None

    @abstractmethod
    def runs(self, pipeline: Any) -> bool:
        """Whether a pipeline is of this family."""

    @abstractmethod
    def encode(self, model: LoadedModel, asked: Sequence[Asked]) -> list[Conditioning]:
        """Run the text encoders, once for all; the jobs are alike in `guided` and in having a negative prompt."""

    @abstractmethod
    def predict(
        self,
        model: LoadedModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        rows: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """One evaluation of the network: latents [R, ...], timesteps [R], each tensor of `rows` [R, ...]."""

    @abstractmethod
    def decode(
        self, model: LoadedModel, latents: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Pictures of latents: [N, 3, H, W], values about -1..1."""

    @abstractmethod
    def channels(self, model: LoadedModel) -> int:
        """Channels of the latents."""

    def guided(self, model: LoadedModel, guidance: float) -> bool:
        """Whether a guidance scale takes a second evaluation."""
        return guidance > 1

    def latent_shape(self, model: LoadedModel, drawn: Size) -> tuple[int, int, int, int]:
        """Shape of one picture's latents."""
        width, height = drawn
        factor = model.pipeline.vae_scale_factor
        return (1, self.channels(model), height // factor, width // factor)

    def set_timesteps(self, model: LoadedModel, scheduler: Any, steps: int, drawn: Size) -> None:
        """Set a job's own scheduler to its steps.  ValueError if it refuses them."""
        scheduler.set_timesteps(steps, device=model.device)

    def begin(self, scheduler: Any) -> None:  # noqa: B027  # most families do nothing
        """What the pipeline does to a scheduler before the first step, beyond its timesteps."""

    def first_noise_scale(self, scheduler: Any) -> float:
        """What noise is multiplied by to become the first latents."""
        scale: float = scheduler.init_noise_sigma
        return scale

    def scaled(self, scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Latents as the network wants to see them at a timestep."""
        scaled: torch.Tensor = scheduler.scale_model_input(latents, timestep)
        return scaled

    def estimate(
        self, scheduler: Any, sample: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """The picture's latents without their remaining noise, by what the network saw and said last."""
        kind: str = scheduler.config.prediction_type
        if kind == "sample":
            return predicted
        # What the network sees is always sqrt(a) x0 + sqrt(1 - a) noise, however the scheduler scales its own
        # sample, so this one formula serves all of them (timesteps may be fractional).
        alpha = _alpha(scheduler.alphas_cumprod, float(timestep))
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        if kind == "v_prediction":
            estimated: torch.Tensor = signal * sample - noise * predicted
        else:
            estimated = (sample - noise * predicted) / signal
        return estimated


def _alpha(alphas_cumprod: torch.Tensor, timestep: float) -> float:
    """Signal part at a timestep, between two whole ones by interpolation."""
    below = min(max(int(timestep), 0), len(alphas_cumprod) - 1)
    above = min(below + 1, len(alphas_cumprod) - 1)
    part = min(max(timestep - below, 0.0), 1.0)
    alpha = float(alphas_cumprod[below]) * (1 - part) + float(alphas_cumprod[above]) * part
    return max(alpha, _LEAST_ALPHA)


def one_each(tensors: Sequence[torch.Tensor | None], index: int, *, guided: bool) -> torch.Tensor:
    """Rows of one job out of (negative, positive) encodings of several; the negative one only where guided."""
    negative, positive = tensors
    if positive is None or (guided and negative is None):
        raise ValueError("the text encoders gave nothing")
    if not guided or negative is None:
        return positive[index : index + 1]
    return torch.cat([negative[index : index + 1], positive[index : index + 1]])
