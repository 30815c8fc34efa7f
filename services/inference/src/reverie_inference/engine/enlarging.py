"""Super-resolution of a picture that came with the job: one tile at a time, one pass after the other."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from msgspec.structs import replace
from PIL import Image

from reverie_inference.engine.events import Event, Finished, Tiled
from reverie_inference.engine.memory import out_of_memory
from reverie_inference.engine.picture_plan import pass_scale
from reverie_inference.engine.pictures import Pictures
from reverie_inference.engine.upscaling import tiles_of, upscale
from reverie_inference.upscalers.network import Upscaler
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import JobMeta, SuperResolutionParams
from reverie_protocol.sizes import enlarged

BACKEND = "torch"
_OPAQUE = 255


@dataclass(frozen=True)
class EnlargingRequest:
    """A picture (RGB or RGBA, upright) to be enlarged `passes` times by the upscaler's scale."""

    image: Image.Image
    upscaler: Upscaler
    passes: int
    meta: JobMeta


def resolve_enlarging(
    params: SuperResolutionParams, pictures: Pictures, upscalers: Mapping[int, Upscaler]
) -> EnlargingRequest:
    """What these parameters ask for; ReverieError `superres_disabled`, or what `enlarged` says of its size."""
    scale = pass_scale(upscalers)
    if scale is None:
        raise ReverieError(ErrorCode.SUPERRES_DISABLED, "This worker has no super-resolution model.")
    if pictures.init is None:
        raise RuntimeError("a job of super-resolution came without its picture")
    upscaler, image = upscalers[scale], pictures.init
    width, height = enlarged(image.size, params.magnitude, field="magnitude", scale=upscaler.scale)
    meta = JobMeta(
        seed=0,
        backend=BACKEND,
        sr=True,
        model=upscaler.name,
        size=f"{width}x{height}",
        native_size=f"{image.width}x{image.height}",
        sr_model=upscaler.name,
        sr_passes=params.magnitude,
        sr_scale_per_pass=upscaler.scale,
        sr_format=params.out_format,
    )
    return EnlargingRequest(image, upscaler, params.magnitude, meta)


class Enlarging:
    """`advance` until a Finished event; a job that leaves earlier leaves nothing behind."""

    #: It runs on no model of the shelf.
    model = None

    def __init__(self, job_id: str, request: EnlargingRequest) -> None:
        self.job_id = job_id
        self._request = request
        self._began_at = time.perf_counter()
        self._work = self._run()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._request.upscaler.device

    @property
    def meta(self) -> JobMeta:
        """How the picture is made, with the time spent on it until now."""
        return replace(self._request.meta, run_seconds=round(time.perf_counter() - self._began_at, 3))

    def advance(self) -> list[Event]:
        """The next tile."""
        return next(self._work)

    def preview(self) -> None:
        """There is none: the client has the picture."""

    def leave(self, *, keep_partial: bool) -> None:
        """End the job now; a picture of which a part is missing is not kept."""
        self._work.close()

    def _run(self) -> Generator[list[Event], None, None]:
        request = self._request
        total = self._tile_count()
        yield [Tiled(self.job_id, 0, total, 0.0)]
        values = _layers(request.image)
        self._require_memory(values)
        done, lapped_at = 0, time.perf_counter()
        for _ in range(request.passes):
            enlarging = upscale(request.upscaler, values)
            while True:
                try:
                    next(enlarging)
                except StopIteration as end:
                    values = end.value
                    break
                done, now = done + 1, time.perf_counter()
                yield [Tiled(self.job_id, done, total, now - lapped_at)]
                lapped_at = now
        image = _image(values, alpha=request.image.mode == "RGBA")
        yield [Finished(self.job_id, image, self.meta)]

    def _tile_count(self) -> int:
        """Tiles of all passes."""
        upscaler = self._request.upscaler
        width, height = self._request.image.size
        factors = (upscaler.scale**done for done in range(self._request.passes))
        return sum(len(tiles_of(upscaler, height * factor, width * factor)) for factor in factors)

    def _require_memory(self, values: torch.Tensor) -> None:
        """The result lies in the machine's own memory, twice when it becomes a picture."""
        factor = self._request.upscaler.scale ** (2 * self._request.passes)
        if 2 * values.nbytes * factor > psutil.virtual_memory().available:
            raise out_of_memory(torch.device("cpu"))


def _layers(image: Image.Image) -> torch.Tensor:
    """[1, 3, H, W] of bytes; transparency, where there is any, is a grey picture beside: [2, 3, H, W]."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    colours = values[:3][None]
    if len(values) == 3 or bool((values[3] == _OPAQUE).all()):
        return colours.contiguous()
    return torch.cat([colours, values[3].expand(1, 3, -1, -1)])


def _image(values: torch.Tensor, *, alpha: bool) -> Image.Image:
    """The picture of enlarged layers."""
    channels = values[0]
    if alpha and len(values) > 1:
        channels = torch.cat([channels, values[1].float().mean(0, keepdim=True).round().to(torch.uint8)])
    elif alpha:
        channels = torch.cat([channels, torch.full_like(channels[:1], _OPAQUE)])
    return Image.fromarray(channels.permute(1, 2, 0).contiguous().numpy())
