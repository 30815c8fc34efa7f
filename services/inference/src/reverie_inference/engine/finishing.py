"""From decoded values to the final picture: to eight bits, by super-resolution, to the exact size."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np
import structlog
import torch
from PIL import Image

from reverie_inference.engine.picture_plan import PicturePlan
from reverie_inference.engine.upscaling import upscale
from reverie_inference.models.loaded import Size
from reverie_inference.upscalers.network import Upscaler

#: Largest partial picture that is brought to the size that was asked for, in pixels.
PARTIAL_PX = 1024 * 1024

log = structlog.get_logger(__name__)


def needs_upscaling(plan: PicturePlan) -> bool:
    """Whether anything remains to be done after decoding."""
    return bool(plan.scales) or plan.final != plan.drawn


def decoded_picture(decoded: torch.Tensor) -> torch.Tensor:
    """Values about -1..1 as a picture [1, 3, H, W] of 0..1; what is not finite becomes black."""
    if not bool(torch.isfinite(decoded).all()):
        log.warning("picture_not_finite")
        decoded = torch.nan_to_num(decoded, nan=-1.0, posinf=1.0, neginf=-1.0)
    return (decoded * 0.5 + 0.5).clamp(0, 1)


def to_image(picture: torch.Tensor) -> Image.Image:
    """[1, 3, H, W] of 0..1 to eight bits a channel, rounded as diffusers does."""
    values = (picture[0].float() * 255).round_().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).contiguous().cpu().numpy())


def to_picture(image: Image.Image, device: torch.device) -> torch.Tensor:
    """Eight bits a channel to [1, 3, H, W] of 0..1 in single precision."""
    values = torch.from_numpy(np.array(image.convert("RGB"))).to(device)
    return values.permute(2, 0, 1)[None].float() / 255


def finish_picture(
    picture: torch.Tensor, plan: PicturePlan, upscalers: Mapping[int, Upscaler]
) -> Generator[None, None, Image.Image]:
    """The plan's final picture; `picture` is [1, 3, H, W] of 0..1 as it was drawn.

    Yields between the tiles of super-resolution; the generator's value is the picture.
    """
    if not needs_upscaling(plan):
        return to_image(picture)
    enlarged = picture.float()
    for scale in plan.scales:
        enlarged = yield from upscale(upscalers[scale], enlarged)
    image = _resize(to_image(enlarged), plan.picture)
    if not plan.superres_passes:
        return image
    enlarged = to_picture(image, picture.device)
    for _ in range(plan.superres_passes):
        enlarged = yield from upscale(upscalers[plan.superres_scale], enlarged)
    return to_image(enlarged)


def finish_partial(picture: torch.Tensor, plan: PicturePlan) -> Image.Image:
    """A picture that was left unfinished, quickly: at its size where that is small, else as it was drawn."""
    image = to_image(picture)
    small = plan.picture[0] * plan.picture[1] <= PARTIAL_PX
    return _resize(image, plan.picture) if small else image


def _resize(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
