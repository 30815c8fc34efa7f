"""What this worker says of itself: its record, as its state and its jobs change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import PurePath
from typing import Any, Final

from msgspec.structs import replace

from reverie_inference.models.card import mode_name
from reverie_inference.settings import InferenceSettings
from reverie_inference.worker.capabilities import Capabilities
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import Job, JobType, ModeInfo, Vram, Worker, WorkerState
from reverie_protocol.subjects import worker_key
from reverie_runtime.clock import Clock

SERVICE = "inference"
BACKEND = "diffusers"
#: Least part of a model that is told: a load is told some fifty times at most, however many parts the model has.
LOAD_STEP = 0.02
_NOTHING_LOADED: Final[dict[str, Any]] = {"loading": "", "load_progress": 0.0}


class Standing:
    """Folds loading, breaking and draining into the worker's record."""

    def __init__(
        self,
        settings: InferenceSettings,
        *,
        name: str,
        incarnation: str,
        node: str,
        clock: Clock,
        running: Callable[[], Collection[str]],
    ) -> None:
        self._clock = clock
        self._running = running
        self._loads_for = ""
        self._vram: Callable[[], Vram] | None = None
        self.model = mode_name(settings.model) if settings.model else PurePath(settings.modes).name
        self.key = worker_key(name, incarnation)
        self.error: ReverieError | None = None
        self._record = Worker(
            name=name,
            incarnation=incarnation,
            service=SERVICE,
            node=node,
            state=WorkerState.STARTING,
            device=settings.device,
            backend=BACKEND,
            job_types=(JobType.GENERATE, JobType.SR, JobType.SWITCH),
            slots=settings.slots or 1,
            detail=f"loading {self.model}",
            loading=self.model,
            started_at=clock.time(),
        )

    @property
    def state(self) -> WorkerState:
        """Where this worker is in its life."""
        return self._record.state

    @property
    def outline(self) -> Worker:
        """The record without what has to be measured first."""
        return self._record

    @property
    def detail(self) -> str:
        """One sentence about the state, for an operator; empty when all is well."""
        return self._record.detail

    def loaded(self, capabilities: Capabilities) -> None:
        """Models are there, or others than before: ready, unless it is draining already."""
        state = WorkerState.READY if self.state is WorkerState.STARTING else self.state
        self._vram = capabilities.vram
        self._record = replace(
            self._record,
            state=state,
            device=capabilities.device,
            modes=capabilities.modes,
            unavailable=capabilities.unavailable,
            models=capabilities.models,
            mode=capabilities.mode,
            default_mode=capabilities.default_mode or capabilities.mode,
            schedulers=capabilities.schedulers,
            superres=capabilities.superres,
            superres_scale=capabilities.superres_scale,
            slots=capabilities.slots,
            detail=self._record.detail if state is WorkerState.DRAINING else "",
            **_NOTHING_LOADED,
        )

    def broke(self, error: ReverieError) -> None:
        """The model cannot be loaded.

        The worker goes on offering it, so that jobs that only it could do fail with this reason instead of waiting
        for ever.
        """
        self.error = error
        state = WorkerState.BROKEN if self.state is WorkerState.STARTING else self.state
        self._record = replace(
            self._record,
            state=state,
            modes={self.model: ModeInfo(model=self.model)},
            superres=True,
            detail=error.message,
            **_NOTHING_LOADED,
        )

    def loads(self, job: Job) -> None:
        """A job begins; say so if its model has to be loaded first."""
        mode = getattr(job.params, "mode", None) or self._record.mode
        info = self._record.modes.get(mode or "")
        if info is not None and not info.loaded and self.state is WorkerState.READY:
            self._loads_for = job.id
            self._record = replace(
                self._record, detail=f"loading {mode}", loading=mode or "", load_progress=0.0
            )

    def load_reached(self, fraction: float) -> bool:
        """So much of what is being loaded is in place; whether that is worth telling.  It never goes back."""
        if not self._record.loading or fraction < self._record.load_progress + LOAD_STEP:
            return False
        self._record = replace(self._record, load_progress=round(min(fraction, 1.0), 3))
        return True

    def loaded_for(self, job: Job) -> None:
        """A job has ended: what was to be loaded for it is there, or never will be."""
        if job.id == self._loads_for and self.state is WorkerState.READY:
            self._loads_for = ""
            self._record = replace(self._record, detail="", **_NOTHING_LOADED)

    def drain(self) -> None:
        """No more work from now on."""
        self._record = replace(self._record, state=WorkerState.DRAINING, detail="stopping")

    def record(self) -> Worker:
        """The record as it is now."""
        vram = self._vram() if self._vram is not None else Vram()
        return replace(self._record, running=tuple(self._running()), vram=vram, beat_at=self._clock.time())
