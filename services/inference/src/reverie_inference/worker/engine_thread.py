"""The engine's own thread: an actor with a bounded inbox, so that the event loop never waits for the model.

Importing torch takes seconds, so that too happens here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from reverie_inference.engine.events import Event, Failed, Left, Switched
from reverie_inference.engine.pictures import NO_PICTURES, Pictures
from reverie_inference.modes.catalogue import Catalogue
from reverie_inference.worker.capabilities import Capabilities, Offer
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, JobParams, Lane, SuperResolutionParams, SwitchParams

if TYPE_CHECKING:
    from reverie_inference.engine.preview import Preview

#: Commands that wait for the current step to end.  Each job has few at most, so it is never full in practice; a
#: preview that finds it full is dropped, any other command is an error.
INBOX_COMMANDS = 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Loaded:
    """Jobs can be admitted, or what is offered has changed."""

    capabilities: Capabilities


@dataclass(frozen=True)
class LoadReached:
    """So much of the model that is being loaded is in place, from 0 to 1."""

    fraction: float


@dataclass(frozen=True)
class LoadFailed:
    """The model cannot be loaded; every job fails with this error."""

    error: ReverieError


@dataclass(frozen=True)
class PreviewMade:
    """A preview that was asked for; None where there is none to be had."""

    run_id: str
    preview: Preview | None


@dataclass(frozen=True)
class EngineLost:
    """The engine has ended and takes its jobs with it; they may work in another process."""

    reason: str


Report = Event | Loaded | LoadReached | LoadFailed | PreviewMade | EngineLost


class Engine(Protocol):
    """What makes pictures, a step at a time; `StepEngine` says what each of these does."""

    @property
    def jobs(self) -> Collection[str]:
        """Ids of the admitted jobs."""

    def resolve(
        self,
        params: GenerateParams | SuperResolutionParams,
        *,
        fallback_seed: int,
        pictures: Pictures = NO_PICTURES,
    ) -> Any:
        """What `admit` takes."""

    def admit(self, job_id: str, request: Any, *, lane: int, checkpoint: bytes = b"") -> None:
        """Take a job in."""

    def reprioritise(self, job_id: str, lane: int) -> None:
        """Put a job into another lane."""

    def step(self) -> list[Event]:
        """Do the next piece of work."""

    def leave(self, job_id: str, *, keep_partial: bool = False) -> Left | None:
        """Let a job go."""

    def preview(self, job_id: str) -> Preview | None:
        """A job as it looks now."""


Loader = Callable[[], tuple[Engine, Offer]]


@dataclass(frozen=True)
class _Admit:
    run_id: str
    params: JobParams
    fallback_seed: int
    pictures: Pictures
    lane: int
    checkpoint: bytes


@dataclass(frozen=True)
class _Reprioritise:
    run_id: str


@dataclass(frozen=True)
class _Leave:
    run_id: str
    keep_partial: bool


@dataclass(frozen=True)
class _MakePreview:
    run_id: str


@dataclass(frozen=True)
class _Use:
    catalogue: Catalogue


@dataclass(frozen=True)
class _Stop:
    pass


_Command = _Admit | _Reprioritise | _Leave | _MakePreview | _Use | _Stop


class EngineThread:
    """Runs the engine that `load` makes.  `report` is called in the engine's thread for each thing that happens.

    Jobs are known here by the id of their run (`<job>.<attempt>`): two attempts at a job are two runs.
    """

    def __init__(
        self, load: Loader, report: Callable[[Report], None], *, unload_after_s: float | None = None
    ) -> None:
        self._load = load
        self._report = report
        self._unload_after_s = unload_after_s
        self._inbox: Queue[_Command] = Queue(INBOX_COMMANDS)
        #: Where runs are to be put.  One command for each: clients may move a job as often as they like.
        self._lanes: dict[str, int] = {}
        self._lanes_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._engine: Engine | None = None
        self._offer: Offer | None = None
        self._told: Capabilities | None = None
        self._load_error = ReverieError(ErrorCode.MODEL_LOAD_FAILED, "The model is not loaded.")

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current step, leaving every run where it is; idempotent."""
        if self._thread.is_alive():
            self._inbox.put_nowait(_Stop())

    def join(self, timeout: float) -> bool:
        """Wait for the end; whether it came within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def admit(
        self,
        run_id: str,
        params: JobParams,
        *,
        fallback_seed: int,
        pictures: Pictures = NO_PICTURES,
        lane: int = Lane.NORMAL,
        checkpoint: bytes = b"",
    ) -> None:
        """Take a job in; a Finished, Left, Failed or Switched event will come for it."""
        self._inbox.put_nowait(_Admit(run_id, params, fallback_seed, pictures, lane, checkpoint))

    def reprioritise(self, run_id: str, lane: int) -> None:
        """Put a run into another lane, from its next step on; the latest that was said counts."""
        with self._lanes_lock:
            is_told = run_id in self._lanes
            self._lanes[run_id] = lane
        if not is_told:
            self._inbox.put_nowait(_Reprioritise(run_id))

    def leave(self, run_id: str, *, keep_partial: bool) -> None:
        """Let a run go at its next step; a Left event comes unless the run ended before."""
        self._inbox.put_nowait(_Leave(run_id, keep_partial))

    def make_preview(self, run_id: str) -> bool:
        """Ask for a preview between two steps; False if it was dropped because the inbox is full."""
        try:
            self._inbox.put_nowait(_MakePreview(run_id))
        except Full:
            return False
        return True

    def use(self, catalogue: Catalogue) -> None:
        """Offer other modes, once the current step is done."""
        self._inbox.put_nowait(_Use(catalogue))

    def _run(self) -> None:
        try:
            self._engine, self._offer = self._load()
        except ReverieError as error:
            self._load_error = error
            self._report(LoadFailed(error))
        except Exception:
            log.exception("the engine could not be made")
            self._report(LoadFailed(self._load_error))
        else:
            self._tell()
        try:
            while self._obey():
                if self._engine is not None:
                    for event in self._engine.step():
                        self._report(event)
                    self._tell()
        except Exception as error:
            log.exception("the engine ended")
            self._report(EngineLost(str(error) or type(error).__name__))

    def _obey(self) -> bool:
        """Carry out what waits in the inbox, and wait for something if there is nothing to do; False at the end."""
        idle = self._engine is None or not self._engine.jobs
        patience_s = self._unload_after_s
        while True:
            try:
                command = self._inbox.get(block=idle, timeout=patience_s)
            except Empty:
                if not idle:
                    return True
                patience_s = None
                self._unload()
                continue
            if isinstance(command, _Stop):
                return False
            self._carry_out(command)
            idle = False

    def _unload(self) -> None:
        """Nothing was asked for in a while: let the models go that need not stay."""
        if self._offer is not None:
            self._offer.unload()
            self._tell()

    def _tell(self) -> None:
        """Report what is offered now, if that has changed."""
        if self._offer is None:
            return
        now = self._offer.capabilities()
        if now != self._told:
            self._told = now
            self._report(Loaded(now))

    def _carry_out(self, command: _Admit | _Reprioritise | _Leave | _MakePreview | _Use) -> None:
        match command:
            case _Use(catalogue):
                if self._offer is not None:
                    self._offer.use(catalogue)
                    self._tell()
            case _Admit():
                self._admit(command)
            case _Reprioritise(run_id):
                with self._lanes_lock:
                    lane = self._lanes.pop(run_id)
                if self._engine is not None:
                    self._engine.reprioritise(run_id, lane)
            case _Leave(run_id, keep_partial) if self._engine is not None:
                left = self._engine.leave(run_id, keep_partial=keep_partial)
                if left is not None:
                    self._report(left)
            case _MakePreview(run_id):
                preview = self._engine.preview(run_id) if self._engine is not None else None
                self._report(PreviewMade(run_id, preview))

    def _admit(self, command: _Admit) -> None:
        if self._engine is None or self._offer is None:
            self._report(Failed(command.run_id, self._load_error.code, self._load_error.message))
            return
        try:
            if isinstance(command.params, SwitchParams):
                self._offer.switch(command.params.mode)
                self._report(Switched(command.run_id, command.params.mode))
            elif isinstance(command.params, GenerateParams | SuperResolutionParams):
                request = self._engine.resolve(
                    command.params, fallback_seed=command.fallback_seed, pictures=command.pictures
                )
                self._engine.admit(command.run_id, request, lane=command.lane, checkpoint=command.checkpoint)
        except ReverieError as error:
            self._report(Failed(command.run_id, error.code, error.message))
        except Exception:
            log.exception("a job could not be admitted", run_id=command.run_id)
            self._report(Failed(command.run_id, ErrorCode.INTERNAL, "The worker could not start this job."))
        self._tell()
