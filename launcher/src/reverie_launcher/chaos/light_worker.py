"""`python -m reverie_launcher.chaos.light_worker`: the inference service with an engine that only pretends.

Everything but the model is the product's own: the claim, the engine's thread, progress, storing, the record, the
heartbeat, the drain.  Without torch it is back within half a second of its death, so that a run has time for
thousands of faults.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from PIL import Image

from reverie_inference.engine.events import Event, Finished, Left, Started, Stepped
from reverie_inference.engine.pictures import NO_PICTURES, Pictures
from reverie_inference.service import serve
from reverie_inference.settings import Settings
from reverie_inference.worker.capabilities import Capabilities, FixedOffer
from reverie_protocol.jobs import GenerateParams, JobMeta, ModeInfo, Phase, SuperResolutionParams
from reverie_protocol.sizes import parse_size
from reverie_runtime.lifecycle import run_service

if TYPE_CHECKING:
    from reverie_inference.engine.preview import Preview

MODE: Final = "light"
#: Seconds of one step, spent asleep: time passes and nothing is computed.  A job of many steps takes its time, so
#: that something can happen to it meanwhile.
STEP_S: Final = 0.004
MANY_STEPS, LONG_STEP_S = 60, 0.02
DEFAULT_STEPS: Final = 4
DEFAULT_SIZE: Final = "64x64"


class LightRequest(msgspec.Struct, frozen=True):
    """One picture to make."""

    steps: int
    meta: JobMeta


class LightEngine:
    """Takes steps like `StepEngine`, one job at a time; the picture is one colour, drawn from the seed."""

    def __init__(self) -> None:
        self._requests: dict[str, LightRequest] = {}
        self._taken: dict[str, int] = {}

    @property
    def jobs(self) -> Collection[str]:
        """Ids of the admitted jobs."""
        return tuple(self._requests)

    def resolve(
        self,
        params: GenerateParams | SuperResolutionParams,
        *,
        fallback_seed: int,
        pictures: Pictures = NO_PICTURES,
    ) -> LightRequest:
        """What the parameters leave open is filled."""
        assert isinstance(params, GenerateParams), "it offers no super-resolution"
        steps = params.num_inference_steps or DEFAULT_STEPS
        size = params.size or DEFAULT_SIZE
        meta = JobMeta(
            seed=fallback_seed if params.seed is None else params.seed,
            backend=MODE,
            mode=MODE,
            model=MODE,
            scheduler=MODE,
            steps=steps,
            size=size,
            native_size=size,
        )
        return LightRequest(steps, meta)

    def admit(self, job_id: str, request: LightRequest, *, lane: int, checkpoint: bytes = b"") -> None:
        """Take a job in."""
        self._requests[job_id] = request
        self._taken[job_id] = 0

    def step(self) -> list[Event]:
        """One step of every job."""
        step_s = max((step_s_of(request) for request in self._requests.values()), default=0.0)
        time.sleep(step_s)
        events: list[Event] = []
        for job_id, request in tuple(self._requests.items()):
            taken = self._taken[job_id] = self._taken[job_id] + 1
            if taken == 1:
                events.append(Started(job_id, Phase.DENOISING))
            events.append(Stepped(job_id, taken, request.steps, step_s))
            if taken == request.steps:
                self._drop(job_id)
                events.append(Finished(job_id, picture_of(request), request.meta))
        return events

    def reprioritise(self, job_id: str, lane: int) -> None:
        """Nothing: it does one job after the other."""

    def leave(self, job_id: str, *, keep_partial: bool = False) -> Left | None:
        """Let a job go, with its picture if it has begun and that is wanted."""
        request = self._requests.get(job_id)
        if request is None:
            return None
        begun = self._taken[job_id] > 0
        self._drop(job_id)
        return Left(job_id, picture_of(request) if keep_partial and begun else None, request.meta)

    def preview(self, job_id: str) -> Preview | None:
        """None: there is nothing to see before the end."""
        return None

    def _drop(self, job_id: str) -> None:
        del self._requests[job_id], self._taken[job_id]


def step_s_of(request: LightRequest) -> float:
    """How long one of its steps takes."""
    return LONG_STEP_S if request.steps > MANY_STEPS else STEP_S


def picture_of(request: LightRequest) -> Image.Image:
    """A colour by the seed."""
    seed = request.meta.seed
    return Image.new("RGB", parse_size(request.meta.size), (seed & 255, seed >> 8 & 255, seed >> 16 & 255))


def load_light() -> tuple[LightEngine, FixedOffer]:
    """The engine, and what it offers."""
    info = ModeInfo(model=MODE, loaded=True, default_size=DEFAULT_SIZE, default_steps=DEFAULT_STEPS)
    return LightEngine(), FixedOffer(
        Capabilities(mode=MODE, modes={MODE: info}, device="cpu", schedulers=(MODE,), superres=False, slots=1)
    )


def main() -> int:
    """Run the worker; its exit code."""
    return run_service("inference", Settings, partial(serve, load=load_light))


if __name__ == "__main__":
    sys.exit(main())
