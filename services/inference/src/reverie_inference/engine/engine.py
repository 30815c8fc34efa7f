"""The step engine: admits jobs, advances each by one denoising step per turn, lets them go at any step."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
import torch

from reverie_inference.engine.enlarging import Enlarging, EnlargingRequest, resolve_enlarging
from reverie_inference.engine.events import Event, Failed, Finished, Left
from reverie_inference.engine.memory import is_out_of_memory, out_of_memory
from reverie_inference.engine.pictures import NO_PICTURES, Pictures
from reverie_inference.engine.preview import Preview
from reverie_inference.engine.request import Request, resolve_request
from reverie_inference.engine.run import Run
from reverie_inference.models.device import DeviceLost, is_lost, release_cached_memory
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf
from reverie_inference.modes.catalogue import Catalogue
from reverie_inference.upscalers.network import Upscaler
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, SuperResolutionParams

log = structlog.get_logger(__name__)


class StepEngine:
    """The jobs in work, on whatever models they need.  Not thread-safe: one thread owns it.

    `mode` is that of jobs that name none.  Admit while there is room, call `step` while there are `jobs`.  A job
    that fails takes nothing with it: its Failed event is returned, its memory given back, and the others go on.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        mode: str | None = None,
        upscalers: Mapping[int, Upscaler] | None = None,
        capacity: int = 1,
    ) -> None:
        self.shelf = shelf
        self.mode = mode or shelf.catalogue.default_mode
        #: By scale; a model that is loaded later may bring others.
        self.upscalers: Mapping[int, Upscaler] = {} if upscalers is None else upscalers
        self.capacity = capacity
        self._runs: dict[str, Run | Enlarging] = {}
        #: Admitted, and waiting for room: what needs a model that makes one picture at a time, and has one to make.
        self._held: dict[str, Request | EnlargingRequest] = {}

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the admitted jobs."""
        return (*self._runs, *self._held)

    @property
    def _busy(self) -> list[LoadedModel]:
        """Models that must stay in memory."""
        running = [run.model for run in self._runs.values() if run.model is not None]
        return running + [request.model for request in self._held.values() if isinstance(request, Request)]

    def resolve(
        self,
        params: GenerateParams | SuperResolutionParams,
        *,
        fallback_seed: int,
        pictures: Pictures = NO_PICTURES,
    ) -> Request | EnlargingRequest:
        """What these parameters ask for, with the model that makes it; ReverieError where it cannot be had.

        A model that is not in memory is loaded here and now, and others may have to leave.
        """
        if isinstance(params, SuperResolutionParams):
            return resolve_enlarging(params, pictures, self.upscalers)
        mode = self.shelf.find(params.mode or self.mode)
        return resolve_request(
            params,
            self.shelf.fetch(mode, busy=self._busy),
            mode=mode,
            styles=self.shelf.catalogue.styles,
            upscalers=self.upscalers,
            fallback_seed=fallback_seed,
            pictures=pictures,
        )

    def switch(self, mode: str) -> None:
        """Have a mode loaded and make it that of jobs that name none; after an error all is as it was."""
        self.shelf.fetch(self.shelf.find(mode), busy=self._busy)
        self.mode = mode

    def use(self, catalogue: Catalogue) -> None:
        """Offer other modes from now on; jobs that are in go on as they were."""
        self.shelf.use(catalogue, busy=self._busy)
        if self.mode not in catalogue.modes:
            self.mode = catalogue.default_mode

    def unload(self) -> None:
        """Give up every model that is neither pinned nor in use."""
        self.shelf.clear(busy=self._busy)

    def _has_room(self, request: Request | EnlargingRequest) -> bool:
        if len(self._runs) >= self.capacity:
            return False
        # A pipeline with a loop of its own holds state of one picture only.
        if isinstance(request, Request) and request.model.family == "callback":
            return not any(run.model is request.model for run in self._runs.values())
        return True

    def admit(self, job_id: str, request: Request | EnlargingRequest) -> None:
        """Take a job in, with no work done yet; it begins once there is room.  RuntimeError if it is in already."""
        if job_id in self.jobs:
            raise RuntimeError(f"job {job_id} is admitted already")
        self._held[job_id] = request
        self._begin_what_fits()

    def _begin_what_fits(self) -> None:
        for job_id, request in tuple(self._held.items()):
            if self._has_room(request):
                del self._held[job_id]
                if isinstance(request, Request):
                    self._runs[job_id] = Run(job_id, request, self.upscalers)
                else:
                    self._runs[job_id] = Enlarging(job_id, request)

    def step(self) -> list[Event]:
        """Advance every admitted job by one step (or one phase before or after its steps); what happened.

        Jobs with a Finished or Failed event have left.  DeviceLost if no job can be advanced any more.
        """
        self._begin_what_fits()
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
            self._give_memory_back(run.device, error)
            return None

    def leave(self, job_id: str, *, keep_partial: bool = False) -> Left | None:
        """Let a job go before its end, with its picture so far if wanted and possible; None if it is not here."""
        held = self._held.pop(job_id, None)
        if held is not None:
            return Left(job_id, None, held.meta)
        run = self._runs.pop(job_id, None)
        if run is None:
            return None
        try:
            picture = run.leave(keep_partial=keep_partial)
        except Exception as error:
            log.exception("partial_picture_failed", job_id=job_id)
            self._give_memory_back(run.device, error)
            picture = None
        return Left(job_id, picture, run.meta)

    def _advance(self, run: Run | Enlarging) -> list[Event]:
        try:
            events = run.advance()
        except Exception as error:
            self._runs.pop(run.job_id)
            return [self._failure(run, error)]
        if any(isinstance(event, Finished) for event in events):
            self._runs.pop(run.job_id)
        return events

    def _failure(self, run: Run | Enlarging, error: Exception) -> Failed:
        if isinstance(error, ReverieError):
            return Failed(run.job_id, error.code, error.message)
        log.error("inference_failed", job_id=run.job_id, exc_info=error)
        device = run.device
        if is_lost(device):
            raise DeviceLost(f"{device} failed for good ({type(error).__name__})") from error
        if self._give_memory_back(device, error):
            refusal = out_of_memory(device)
            return Failed(run.job_id, refusal.code, refusal.message)
        message = f"The model failed on this request ({type(error).__name__})."
        return Failed(run.job_id, ErrorCode.INFERENCE_FAILED, message)

    def _give_memory_back(self, device: torch.device, error: Exception) -> bool:
        """Whether `error` was a lack of memory; then what the device cached is free again."""
        if not is_out_of_memory(error):
            return False
        # The traceback holds the frames, and they the tensors that did not fit.
        error.__traceback__ = None
        release_cached_memory(device)
        return True
