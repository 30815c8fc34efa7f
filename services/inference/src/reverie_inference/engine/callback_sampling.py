"""One job of a pipeline the engine does not know: the pipeline's own loop, held after each step.

The loop runs in a thread of its own and waits in diffusers' `callback_on_step_end` until the engine lets it go on,
so it is driven one step at a time like every other job.
"""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from PIL import Image

from reverie_inference.engine.request import Request
from reverie_inference.models.image_to_image import from_picture
from reverie_inference.models.loaded import LoadedModel


class _LeftError(Exception):
    """Ends the pipeline's loop when the job has left."""


@dataclass(frozen=True)
class _StepDone:
    step: int


@dataclass(frozen=True)
class _LoopEnded:
    picture: Image.Image | None
    error: BaseException | None


class CallbackSampling:
    """`advance` until `done`, then `picture`; `leave` ends it early."""

    def __init__(self, model: LoadedModel, request: Request) -> None:
        self._pipeline = model.pipeline
        self._request = request
        self._turn = threading.Semaphore(0)
        self._reports: SimpleQueue[_StepDone | _LoopEnded] = SimpleQueue()
        self._leaving = False
        self._thread: threading.Thread | None = None
        self._ended = False
        self.step = 0
        self.steps = request.steps if request.start is None else request.start.steps
        self.picture: Image.Image | None = None

    @property
    def done(self) -> bool:
        """Whether the loop has ended and the picture is there."""
        return self._ended

    def advance(self) -> None:
        """Run to the end of the next step, or after the last one to the picture; raises what the loop raises."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pipeline-loop", daemon=True)
            self._thread.start()
        else:
            self._turn.release()
        report = self._reports.get()
        if isinstance(report, _StepDone):
            self.step = min(report.step, self.steps)
            return
        self._ended = True
        self._thread.join()
        if report.error is not None:
            raise report.error
        self.picture = report.picture

    def leave(self, *, keep_partial: bool) -> Image.Image | None:
        """End the loop now; the picture as far as it is, if that is wanted and the pipeline can be interrupted."""
        if self._thread is None or self._ended:
            return self.picture
        if keep_partial and self.step and hasattr(self._pipeline, "interrupt"):
            # The loop skips its remaining steps and decodes what it has.
            self._pipeline._interrupt = True
        else:
            self._leaving = True
        while not self._ended:
            try:
                self.advance()
            except _LeftError:
                return None
        return self.picture

    def _run(self) -> None:
        picture: Image.Image | None = None
        error: BaseException | None = None
        try:
            start = self._request.start
            if start is not None:
                self._pipeline = from_picture(self._pipeline, masked=start.mask is not None)
            with torch.no_grad():
                picture = self._pipeline(**self._arguments()).images[0]
        except BaseException as raised:
            error = raised
        self._reports.put(_LoopEnded(picture, error))

    def _on_step_end(self, _pipeline: Any, step: int, _timestep: Any, _tensors: Any) -> dict[str, Any]:
        self._reports.put(_StepDone(step + 1))
        self._turn.acquire()
        if self._leaving:
            raise _LeftError
        return {}

    def _arguments(self) -> dict[str, Any]:
        """The pipeline's arguments, as far as it takes them."""
        request = self._request
        width, height = request.plan.drawn
        self._pipeline.scheduler = request.scheduler
        offered = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "width": width,
            "height": height,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance,
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "callback_on_step_end": self._on_step_end,
        }
        if request.start is not None:
            offered["image"] = request.start.image
            offered["strength"] = request.start.strength
            if request.start.mask is not None:
                offered["mask_image"] = request.start.mask
        accepted = inspect.signature(self._pipeline.__call__).parameters
        return {key: value for key, value in offered.items() if key in accepted}
