"""One admitted job, from its first phase to its picture, one bounded piece of work at a time."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping

import torch
from msgspec.structs import replace
from PIL import Image

from reverie_inference.engine.callback_sampling import CallbackSampling
from reverie_inference.engine.events import Event, Finished, Started, Stepped
from reverie_inference.engine.finishing import (
    decoded_picture,
    finish_partial,
    finish_picture,
    needs_upscaling,
    to_picture,
)
from reverie_inference.engine.memory import require_memory
from reverie_inference.engine.pacing import Pacing
from reverie_inference.engine.preview import Preview, make_preview
from reverie_inference.engine.request import Request
from reverie_inference.engine.sampling import Sampling
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.upscalers.network import Upscaler
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import JobMeta, Phase

Work = Generator[list[Event], None, None]


class Run:
    """`advance` until a Finished event; between two calls the job may be previewed or made to leave."""

    def __init__(self, job_id: str, request: Request, upscalers: Mapping[int, Upscaler]) -> None:
        self.job_id = job_id
        self._request = request
        self._model = model = request.model
        self._upscalers = upscalers
        self._pacing = Pacing(model.device)
        self._began_at = time.perf_counter()
        self._sampling: Sampling | CallbackSampling
        if model.family == "callback":
            self._sampling = CallbackSampling(model, request)
            self._work = self._run_callback(self._sampling)
        else:
            self._sampling = Sampling(model, request)
            self._work = self._run_steps(self._sampling)

    @property
    def model(self) -> LoadedModel:
        """What it runs on."""
        return self._model

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._model.device

    @property
    def meta(self) -> JobMeta:
        """How the picture is made, with the time spent on it until now."""
        seconds = round(time.perf_counter() - self._began_at, 3)
        return replace(self._request.meta, run_seconds=seconds)

    def advance(self) -> list[Event]:
        """The next piece of work: a step, or a phase before or after the steps."""
        return next(self._work)

    def preview(self) -> Preview | None:
        """The picture as it is now; None before the first step, or where it cannot be had cheaply."""
        if isinstance(self._sampling, CallbackSampling) or not self._sampling.step:
            return None
        return make_preview(self._model, self._sampling)

    def leave(self, *, keep_partial: bool) -> Image.Image | None:
        """End the job now; what it has drawn so far, if that is wanted and at least one step is done."""
        self._work.close()
        if isinstance(self._sampling, CallbackSampling):
            return self._sampling.leave(keep_partial=keep_partial)
        if not keep_partial or not self._sampling.step:
            return None
        decoded = self._sampling.decode(self._sampling.estimate())
        return finish_partial(decoded_picture(decoded), self._request.plan)

    def _run_steps(self, sampling: Sampling) -> Work:
        yield [Started(self.job_id, Phase.ENCODING)]
        require_memory(self._model, self._request.plan.drawn)
        self._dress()
        try:
            sampling.begin()
        except ValueError as error:
            raise _steps_refused(self._request) from error
        yield [Started(self.job_id, Phase.DENOISING, sampling.steps)]
        while not sampling.done:
            self._dress()
            sampling.advance()
            yield [self._stepped(sampling)]
        self._pacing.drain()
        yield [Started(self.job_id, Phase.DECODING)]
        picture = decoded_picture(sampling.decode())
        yield from self._finish(picture)

    def _run_callback(self, sampling: CallbackSampling) -> Work:
        yield [Started(self.job_id, Phase.ENCODING)]
        require_memory(self._model, self._request.plan.drawn)
        self._dress()
        sampling.advance()
        yield [Started(self.job_id, Phase.DENOISING, sampling.steps), self._stepped(sampling)]
        while not sampling.done:
            before = sampling.step
            sampling.advance()
            if sampling.step != before:
                yield [self._stepped(sampling)]
        if sampling.picture is None:
            raise RuntimeError("the pipeline returned no picture")
        yield from self._finish(to_picture(sampling.picture, self._model.device))

    def _finish(self, picture: torch.Tensor) -> Work:
        if needs_upscaling(self._request.plan):
            yield [Started(self.job_id, Phase.UPSCALING)]
        finishing = finish_picture(picture, self._request.plan, self._upscalers)
        while True:
            try:
                next(finishing)
            except StopIteration as end:
                image: Image.Image = end.value
                break
            yield []
        yield [Finished(self.job_id, image, self.meta)]

    def _dress(self) -> None:
        """Put on this job's LoRAs: another job of the same model may have worn others since."""
        self._model.adapters.wear(self._request.loras)

    def _stepped(self, sampling: Sampling | CallbackSampling) -> Stepped:
        return Stepped(self.job_id, sampling.step, sampling.steps, self._pacing.lap())


def _steps_refused(request: Request) -> ReverieError:
    """Some schedulers take fewer steps than others (LCM: no more than it was distilled with)."""
    message = f"The scheduler {request.scheduler_name} does not take {request.steps} steps."
    field = FieldError(("num_inference_steps",), message, "steps_refused")
    return ReverieError(ErrorCode.INVALID_FIELD, message, fields=[field])
