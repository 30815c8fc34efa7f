"""One admitted job, from its first phase to its picture: what it would do next, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from enum import Enum, auto

import structlog
import torch
from msgspec.structs import replace
from PIL import Image

from reverie_inference.engine.callback_sampling import CallbackSampling
from reverie_inference.engine.checkpoint import UnusableCheckpoint
from reverie_inference.engine.events import Checkpointed, Event, Finished, Started, Stepped
from reverie_inference.engine.finishing import (
    decoded_picture,
    finish_partial,
    finish_picture,
    needs_upscaling,
    to_picture,
)
from reverie_inference.engine.memory import require_memory
from reverie_inference.engine.preview import Preview, make_preview
from reverie_inference.engine.request import Request
from reverie_inference.engine.sampling import Sampling, StepsRefused
from reverie_inference.families.port import Conditioning
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.upscalers.network import Upscaler
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import JobMeta, Phase

log = structlog.get_logger(__name__)

Work = Generator[list[Event], None, None]


class Next(Enum):
    """What a job does next; the first three can be done for several jobs at once."""

    ENCODE = auto()
    STEP = auto()
    DECODE = auto()
    #: Something of its own: a step of a pipeline's own loop, a tile.
    ADVANCE = auto()


class Run:
    """`next` says what to do; the method of that name does it, until a Finished event.

    Between two of them the job may be previewed, left alone, or made to leave.
    """

    def __init__(
        self,
        job_id: str,
        request: Request,
        upscalers: Mapping[int, Upscaler],
        *,
        checkpoint: bytes = b"",
        checkpoint_steps: int = 0,
    ) -> None:
        self.job_id = job_id
        self._checkpoint = checkpoint
        self._checkpoint_steps = checkpoint_steps
        self._checkpointed_at = 0
        self.request = request
        self._model = model = request.model
        self._upscalers = upscalers
        self._began_at = self._lapped_at = time.perf_counter()
        self._work: Work | None = None
        self.sampling: Sampling | CallbackSampling
        if request.own_loop:
            self.sampling = CallbackSampling(model, request)
            self._work = self._run_callback(self.sampling)
            self.next = Next.ADVANCE
        else:
            self.sampling = Sampling(model, request)
            self.next = Next.ENCODE

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
        return replace(self.request.meta, run_seconds=seconds)

    def begin(self) -> list[Event]:
        """It has been taken in hand."""
        return [Started(self.job_id, Phase.ENCODING)]

    def dress(self) -> None:
        """Put on this job's LoRAs: another job of the same model may have worn others since."""
        self._model.adapters.wear(self.request.loras)

    def encoded(self, conditioning: Conditioning) -> list[Event]:
        """Its prompt is encoded: draw the first latents."""
        sampling = self._stepwise
        try:
            sampling.begin(conditioning)
        except StepsRefused as error:
            raise _steps_refused(self.request) from error
        self._go_on(sampling)
        self.next = Next.STEP if not sampling.done else Next.DECODE
        self._lapped_at = time.perf_counter()
        return [Started(self.job_id, Phase.DENOISING, sampling.steps)]

    def evaluated(self, predicted: torch.Tensor) -> list[Event]:
        """The network has said something to it: take a step."""
        sampling = self._stepwise
        sampling.accept(predicted)
        events: list[Event] = [self._stepped(sampling)]
        events += self._checkpointed(sampling)
        if sampling.done:
            self.next = Next.DECODE
            events.append(Started(self.job_id, Phase.DECODING))
        return events

    def decoded(self, decoded: torch.Tensor) -> list[Event]:
        """Its latents are decoded, [1, 3, H, W] about -1..1."""
        self._work = self._finish(decoded_picture(decoded))
        self.next = Next.ADVANCE
        return next(self._work)

    def advance(self) -> list[Event]:
        """A piece of work of its own."""
        if self._work is None:
            raise RuntimeError(f"job {self.job_id} has nothing of its own to do")
        return next(self._work)

    def preview(self) -> Preview | None:
        """The picture as it is now; None before the first step, or where it cannot be had cheaply."""
        if isinstance(self.sampling, CallbackSampling) or not self.sampling.seen:
            return None
        return make_preview(self.sampling)

    def leave(self, *, keep_partial: bool) -> Image.Image | None:
        """End the job now; what it has drawn so far, if that is wanted and at least one step is done."""
        if self._work is not None:
            self._work.close()
        if isinstance(self.sampling, CallbackSampling):
            return self.sampling.leave(keep_partial=keep_partial)
        if not keep_partial or not self.sampling.seen:
            return None
        decoded = self.sampling.decode(self.sampling.estimate())
        return finish_partial(decoded_picture(decoded), self.request.plan)

    def require_memory(self) -> None:
        """Refuse a picture that cannot be held; ReverieError `out_of_memory`."""
        require_memory(self._model, self.request.plan.drawn)

    def _checkpointed(self, sampling: Sampling) -> list[Event]:
        """A checkpoint if it is time for one; a second-order step, of two evaluations, makes one at its first."""
        every, step = self._checkpoint_steps, sampling.step
        if not every or sampling.done or step % every or step == self._checkpointed_at:
            return []
        self._checkpointed_at = step
        try:
            return [Checkpointed(self.job_id, step, sampling.checkpoint())]
        except Exception:
            # It is a courtesy to another attempt; this one goes on without.
            log.exception("checkpoint_failed", job_id=self.job_id, step=step)
            return []

    def _go_on(self, sampling: Sampling) -> None:
        """From the checkpoint of an attempt before, if there is one and it fits."""
        checkpoint, self._checkpoint = self._checkpoint, b""
        if not checkpoint:
            return
        try:
            sampling.restore(checkpoint)
        except UnusableCheckpoint as error:
            log.warning("a checkpoint is not used", job_id=self.job_id, reason=str(error))
        else:
            log.info("goes on from a checkpoint", job_id=self.job_id, step=sampling.step)

    @property
    def _stepwise(self) -> Sampling:
        if isinstance(self.sampling, CallbackSampling):
            raise TypeError(f"job {self.job_id} has a loop of its own")
        return self.sampling

    def _run_callback(self, sampling: CallbackSampling) -> Work:
        self.require_memory()
        self.dress()
        sampling.advance()
        yield [Started(self.job_id, Phase.DENOISING, sampling.steps), self._stepped(sampling)]
        while not sampling.done:
            before = sampling.step
            self.dress()
            sampling.advance()
            if sampling.step != before:
                yield [self._stepped(sampling)]
        if sampling.picture is None:
            raise RuntimeError("the pipeline returned no picture")
        yield from self._finish(to_picture(sampling.picture, self._model.device))

    def _finish(self, picture: torch.Tensor) -> Work:
        if needs_upscaling(self.request.plan):
            yield [Started(self.job_id, Phase.UPSCALING)]
        finishing = finish_picture(picture, self.request.plan, self._upscalers)
        while True:
            try:
                next(finishing)
            except StopIteration as end:
                image: Image.Image = end.value
                break
            yield []
        yield [Finished(self.job_id, image, self.meta)]

    def _stepped(self, sampling: Sampling | CallbackSampling) -> Stepped:
        now = time.perf_counter()
        seconds, self._lapped_at = now - self._lapped_at, now
        return Stepped(self.job_id, sampling.step, sampling.steps, seconds)


def _steps_refused(request: Request) -> ReverieError:
    """Some schedulers take fewer steps than others (LCM: no more than it was distilled with)."""
    message = f"The scheduler {request.scheduler_name} does not take {request.steps} steps."
    field = FieldError(("num_inference_steps",), message, "steps_refused")
    return ReverieError(ErrorCode.INVALID_FIELD, message, fields=[field])
