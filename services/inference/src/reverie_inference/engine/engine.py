"""The step engine: admits jobs, advances each by one denoising step per turn, lets them go at any step."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from reverie_inference.engine.events import Event, Failed, Finished, Left
from reverie_inference.engine.memory import is_out_of_memory, out_of_memory
from reverie_inference.engine.preview import Preview
from reverie_inference.engine.request import Request, resolve_request
from reverie_inference.engine.run import Run
from reverie_inference.engine.upscaling import Upscaler
from reverie_inference.models.device import DeviceLost, is_lost, release_cached_memory
from reverie_inference.models.loaded import LoadedModel
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams

log = structlog.get_logger(__name__)


class StepEngine:
    """The jobs on one model.  Not thread-safe: one thread owns it.

    Admit while there is `room`, call `step` while there are `jobs`.  A job that fails takes nothing with it: its
    Failed event is returned, its memory given back, and the others go on.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        upscalers: Mapping[int, Upscaler] | None = None,
        capacity: int = 1,
    ) -> None:
        self.model = model
        self.upscalers = dict(upscalers or {})
        # A pipeline with a loop of its own holds state of one picture only.
        self.capacity = 1 if model.family == "callback" else capacity
        self._runs: dict[str, Run] = {}

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the admitted jobs, in order of admission."""
        return tuple(self._runs)

    @property
    def room(self) -> int:
        """How many more jobs can be admitted now."""
        return self.capacity - len(self._runs)

    def resolve(self, params: GenerateParams, *, fallback_seed: int) -> Request:
        """What these parameters ask of this engine's model; ReverieError where it cannot be had."""
        return resolve_request(params, self.model, scales=self.upscalers, fallback_seed=fallback_seed)

    def admit(self, job_id: str, request: Request) -> None:
        """Take a job in; no work is done yet.  RuntimeError without room, or if the job is in already."""
        if job_id in self._runs:
            raise RuntimeError(f"job {job_id} is admitted already")
        if not self.room:
            raise RuntimeError("the engine is full")
        self._runs[job_id] = Run(job_id, self.model, request, self.upscalers)

    def step(self) -> list[Event]:
        """Advance every admitted job by one step (or one phase before or after its steps); what happened.

        Jobs with a Finished or Failed event have left.  DeviceLost if no job can be advanced any more.
        """
        events: list[Event] = []
        for run in tuple(self._runs.values()):
            events.extend(self._advance(run))
        return events

    def preview(self, job_id: str) -> Preview | None:
        """A cheap picture of a job as it is now; None before its first step or if there is none to be had."""
        run = self._runs.get(job_id)
        if run is None:
            return None
        try:
            return run.preview()
        except Exception as error:
            # A preview is a courtesy; the job goes on without.
            log.warning("preview_failed", job_id=job_id, reason=type(error).__name__)
            self._give_memory_back(error)
            return None

    def leave(self, job_id: str, *, keep_partial: bool = False) -> Left | None:
        """Let a job go before its end, with its picture so far if wanted and possible; None if it is not here."""
        run = self._runs.pop(job_id, None)
        if run is None:
            return None
        try:
            picture = run.leave(keep_partial=keep_partial)
        except Exception as error:
            log.exception("partial_picture_failed", job_id=job_id)
            self._give_memory_back(error)
            picture = None
        return Left(job_id, picture, run.meta)

    def _advance(self, run: Run) -> list[Event]:
        try:
            events = run.advance()
        except Exception as error:
            self._runs.pop(run.job_id)
            return [self._failure(run.job_id, error)]
        if any(isinstance(event, Finished) for event in events):
            self._runs.pop(run.job_id)
        return events

    def _failure(self, job_id: str, error: Exception) -> Failed:
        if isinstance(error, ReverieError):
            return Failed(job_id, error.code, error.message)
        log.error("inference_failed", job_id=job_id, exc_info=error)
        if is_lost(self.model.device):
            raise DeviceLost(f"{self.model.device} failed for good ({type(error).__name__})") from error
        if self._give_memory_back(error):
            refusal = out_of_memory(self.model.device)
            return Failed(job_id, refusal.code, refusal.message)
        message = f"The model failed on this request ({type(error).__name__})."
        return Failed(job_id, ErrorCode.INFERENCE_FAILED, message)

    def _give_memory_back(self, error: Exception) -> bool:
        """Whether `error` was a lack of memory; then what the device cached is free again."""
        if not is_out_of_memory(error):
            return False
        # The traceback holds the frames, and they the tensors that did not fit.
        error.__traceback__ = None
        release_cached_memory(self.model.device)
        return True
