"""The step engine: the jobs in work, a turn at a time; who goes in a turn is decided in `turns`."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

import structlog
import torch

from reverie_inference.engine.encoding import encode, encoding_key, known_encoding
from reverie_inference.engine.enlarging import Enlarging, EnlargingRequest, resolve_enlarging
from reverie_inference.engine.evaluation import evaluate
from reverie_inference.engine.events import Event, Failed, Finished, Left
from reverie_inference.engine.measured import MOST_ROWS, StepTimes
from reverie_inference.engine.memory import PeakMemory, is_out_of_memory, out_of_memory
from reverie_inference.engine.pacing import Pacing
from reverie_inference.engine.pictures import NO_PICTURES, Pictures
from reverie_inference.engine.preview import Preview
from reverie_inference.engine.request import Request, resolve_request
from reverie_inference.engine.run import Next, Run
from reverie_inference.engine.sampling import Sampling
from reverie_inference.engine.turns import Piece, next_turn
from reverie_inference.models.device import DeviceLost, is_lost, release_cached_memory
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import Shelf, free_bytes
from reverie_inference.modes.catalogue import Catalogue
from reverie_inference.upscalers.network import Upscaler
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, Lane, SuperResolutionParams

#: Jobs that are taken in before anything was measured, and the most that ever are.
FIRST_JOBS: Final = 2
MOST_JOBS: Final = 16
#: Pixels of pictures that are decoded together.
DECODED_PX: Final = 1024 * 1024

log = structlog.get_logger(__name__)


class _Job:
    """A job in the engine: begun once it is in work, and from then on with a run."""

    def __init__(
        self, job_id: str, request: Request | EnlargingRequest, lane: int, arrival: int, checkpoint: bytes
    ) -> None:
        self.job_id = job_id
        self.request = request
        self.lane = lane
        self.arrival = arrival
        self.checkpoint = checkpoint
        self.run: Run | Enlarging | None = None
        self.served_at = time.monotonic()

    @property
    def model(self) -> LoadedModel | None:
        """What it runs on."""
        return self.request.model if isinstance(self.request, Request) else None


class StepEngine:
    """The jobs in work, on whatever models they need.  Not thread-safe: one thread owns it.

    `mode` is that of jobs that name none.  At most `capacity` jobs are in work (0 lets measurement decide, see
    `room`), those of the highest lanes and in them the first to come; a job that is displaced keeps all it has and
    goes on later.  Admit jobs, call `step`
    while there are `jobs`.  A job that fails takes nothing with it: its Failed event is returned, its memory given
    back, and the others go on.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        mode: str | None = None,
        upscalers: Mapping[int, Upscaler] | None = None,
        capacity: int = 0,
        checkpoint_steps: int = 0,
    ) -> None:
        self.shelf = shelf
        self.mode = mode or shelf.catalogue.default_mode
        #: By scale; a model that is loaded later may bring others.
        self.upscalers: Mapping[int, Upscaler] = {} if upscalers is None else upscalers
        self.capacity = capacity
        self._checkpoint_steps = checkpoint_steps
        self._jobs: dict[str, _Job] = {}
        self._arrivals = 0
        self._times = StepTimes()
        #: Jobs that were seen to be worth a step together, of the kind that was stepped last.
        self._worth_sharing = FIRST_JOBS
        self._pacing = Pacing()
        #: Memory that a batch may take, as long as a turn is put together; None where that is not known.
        self._free_bytes: int | None = None

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the admitted jobs."""
        return tuple(self._jobs)

    @property
    def room(self) -> int:
        """How many jobs are in work at once: as many as share a step with gain, while that is not known a few."""
        return self.capacity or self._worth_sharing

    @property
    def _busy(self) -> list[LoadedModel]:
        """Models that must stay in memory."""
        return [job.model for job in self._jobs.values() if job.model is not None]

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

    def admit(
        self,
        job_id: str,
        request: Request | EnlargingRequest,
        *,
        lane: int = Lane.NORMAL,
        checkpoint: bytes = b"",
    ) -> None:
        """Take a job in; it begins once there is room, where a checkpoint was made of it if that fits.

        RuntimeError if it is in already.
        """
        if job_id in self._jobs:
            raise RuntimeError(f"job {job_id} is admitted already")
        self._arrivals += 1
        self._jobs[job_id] = _Job(job_id, request, lane, self._arrivals, checkpoint)

    def reprioritise(self, job_id: str, lane: int) -> None:
        """Put a job into another lane, from the next turn on; one that is not here is none of our business."""
        if job_id in self._jobs:
            self._jobs[job_id].lane = lane

    def step(self) -> list[Event]:
        """One turn: one piece of work for those jobs that can share it; what happened.

        Jobs with a Finished or Failed event have left.  DeviceLost if no job can be advanced any more.
        """
        begun = self._begin_what_fits()
        if begun:
            return begun
        self._free_bytes = self._measure_free_bytes()
        turn = next_turn(self._pieces(), fits=self._fits, rides_free=self._times.rides_free)
        if not turn:
            return []
        jobs = [self._jobs[piece.job_id] for piece in turn]
        events = self._work_on(turn[0], jobs)
        now = time.monotonic()
        for job in jobs:
            job.served_at = now
        for event in events:
            if isinstance(event, Finished | Failed):
                self._jobs.pop(event.job_id, None)
        return events

    def preview(self, job_id: str) -> Preview | None:
        """A cheap picture of a job as it is now; None before its first step or if there is none to be had."""
        run = self._run_of(job_id)
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
        job = self._jobs.pop(job_id, None)
        if job is None:
            return None
        run = job.run
        if run is None:
            return Left(job_id, None, job.request.meta)
        try:
            picture = run.leave(keep_partial=keep_partial)
        except Exception as error:
            log.exception("partial_picture_failed", job_id=job_id)
            self._give_memory_back(run.device, error)
            picture = None
        return Left(job_id, picture, run.meta)

    def _run_of(self, job_id: str) -> Run | Enlarging | None:
        job = self._jobs.get(job_id)
        return None if job is None else job.run

    def _in_work(self) -> list[_Job]:
        """The jobs that there is room for, in order; who waits for a loop to end takes none."""
        able = (job for job in self._jobs.values() if job.run is not None or not self._waits_for_loop(job))
        return sorted(able, key=lambda job: (self._lane_of(job), job.arrival))[: self.room]

    def _lane_of(self, job: _Job) -> int:
        """A pipeline's own loop cannot be left alone for another picture of the same pipeline.

        So whoever is in it has the lane of the most urgent one that waits for it.
        """
        if job.run is None or not _own_loop(job):
            return job.lane
        waiting = [
            other.lane
            for other in self._jobs.values()
            if other.run is None and _own_loop(other) and other.model is job.model
        ]
        return min([job.lane, *waiting])

    def _begin_what_fits(self) -> list[Event]:
        events: list[Event] = []
        for job in self._in_work():
            if job.run is not None or self._waits_for_loop(job):
                continue
            try:
                events += self._begin(job)
            except Exception as error:
                log.exception("job_not_begun", job_id=job.job_id)
                del self._jobs[job.job_id]
                message = f"The model failed on this request ({type(error).__name__})."
                events.append(Failed(job.job_id, ErrorCode.INFERENCE_FAILED, message))
        if events:
            self._pacing.rested()
        return events

    def _begin(self, job: _Job) -> list[Event]:
        if not isinstance(job.request, Request):
            enlarging = job.run = Enlarging(job.job_id, job.request)
            return enlarging.advance()
        run = job.run = Run(
            job.job_id,
            job.request,
            self.upscalers,
            checkpoint=job.checkpoint,
            checkpoint_steps=self._checkpoint_steps,
        )
        job.checkpoint = b""
        return run.begin()

    def _waits_for_loop(self, job: _Job) -> bool:
        """Whether a job needs a pipeline's own loop that is at work on another picture."""
        return _own_loop(job) and any(
            other.run is not None and _own_loop(other) and other.model is job.model
            for other in self._jobs.values()
        )

    def _pieces(self) -> list[Piece]:
        now = time.monotonic()
        return [
            Piece(
                job.job_id,
                self._lane_of(job),
                job.arrival,
                *_kind_of(job),
                waited_s=now - job.served_at,
                joining=isinstance(job.run, Run) and job.run.next is Next.ENCODE,
            )
            for job in self._in_work()
            if job.run is not None
        ]

    def _fits(self, kind: Hashable, rows: int) -> bool:
        what = kind[0] if isinstance(kind, tuple) else kind
        if what is Next.STEP:
            return self._times.fits(kind, rows, free_bytes=self._free_bytes)
        if what is Next.DECODE and isinstance(kind, tuple):
            width, height = kind[-1]
            return bool(rows * width * height <= DECODED_PX)
        return what is Next.ENCODE and rows <= MOST_ROWS

    def _measure_free_bytes(self) -> int | None:
        """Of an accelerator; a CPU's allocator does not tell what a batch took, so what is free says nothing."""
        device = next((job.run.device for job in self._jobs.values() if job.run is not None), None)
        return free_bytes(device) if device is not None and device.type == "cuda" else None

    def _work_on(self, piece: Piece, jobs: Sequence[_Job]) -> list[Event]:
        """Do the piece for all of these jobs."""
        runs = [job.run for job in jobs if isinstance(job.run, Run)]
        what = piece.kind[0] if isinstance(piece.kind, tuple) else piece.kind
        if what is Next.ENCODE:
            return self._together(runs, self._encode)
        if what is Next.DECODE:
            return self._together(runs, self._decode)
        if what is Next.STEP:
            return self._together(runs, lambda group: self._evaluate(piece.kind, group))
        events: list[Event] = []
        for job in jobs:
            assert job.run is not None
            events += self._guarded(job.run, job.run.advance)
        return events

    def _together(self, runs: Sequence[Run], work: Callable[[Sequence[Run]], list[Event]]) -> list[Event]:
        """Do something for all at once; if that fails, for each alone, so that one takes nothing with it."""
        if len(runs) > 1:
            try:
                return work(runs)
            except Exception as error:
                device = runs[0].device
                if is_lost(device):
                    raise DeviceLost(f"{device} failed for good ({type(error).__name__})") from error
                log.warning("a batch failed, each alone now", jobs=len(runs), reason=type(error).__name__)
                self._give_memory_back(device, error)
        events: list[Event] = []
        for run in runs:
            events += self._guarded(run, lambda alone=run: work([alone]))  # type: ignore[misc]  # bound at once
        return events

    def _encode(self, runs: Sequence[Run]) -> list[Event]:
        for run in runs:
            run.require_memory()
        runs[0].dress()
        conditionings = encode([run.request for run in runs])
        self._pacing.lap(runs[0].device)
        events: list[Event] = []
        for run, conditioning in zip(runs, conditionings, strict=True):
            events += self._guarded(run, lambda run=run, told=conditioning: run.encoded(told))  # type: ignore[misc]
        return events

    def _evaluate(self, kind: Hashable, runs: Sequence[Run]) -> list[Event]:
        samplings = [run.sampling for run in runs if isinstance(run.sampling, Sampling)]
        rows = sum(sampling.rows for sampling in samplings)
        runs[0].dress()
        try:
            with PeakMemory(runs[0].device) as peak:
                predicted = evaluate(samplings)
        except Exception as error:
            if is_out_of_memory(error) and len(runs) > 1:
                self._times.too_many(kind, rows)
            raise
        events: list[Event] = []
        for run, said in zip(runs, predicted, strict=True):
            events += self._guarded(run, lambda run=run, said=said: run.evaluated(said))  # type: ignore[misc]
        self._times.record(kind, rows, self._pacing.lap(runs[0].device), took_bytes=peak.bytes)
        rows_each = -(-rows // len(samplings))
        self._worth_sharing = max(1, min(MOST_JOBS, self._times.most_rows(kind) // rows_each))
        return events

    def _decode(self, runs: Sequence[Run]) -> list[Event]:
        samplings = [run.sampling for run in runs if isinstance(run.sampling, Sampling)]
        device = runs[0].device
        self._pacing.drain(device)
        first = samplings[0]
        if len(samplings) == 1:
            decoded = first.decode()
        else:
            decoded = first.decode(torch.cat([sampling.latents for sampling in samplings]))
        events: list[Event] = []
        for run, picture in zip(runs, torch.split(decoded, 1), strict=True):
            events += self._guarded(run, lambda run=run, picture=picture: run.decoded(picture))  # type: ignore[misc]
        self._pacing.lap(device)
        return events

    def _guarded(self, run: Run | Enlarging, work: Callable[[], list[Event]]) -> list[Event]:
        """What a job's own work gives, or that it has failed."""
        try:
            return work()
        except Exception as error:
            return [self._failure(run, error)]

    def _failure(self, run: Run | Enlarging, error: Exception) -> Failed:
        if isinstance(error, DeviceLost):
            raise error
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


def _own_loop(job: _Job) -> bool:
    return isinstance(job.request, Request) and job.request.own_loop


def _kind_of(job: _Job) -> tuple[Hashable, int]:
    """What a job's next piece can be shared with, and its rows of a batch."""
    run, request = job.run, job.request
    if not isinstance(run, Run) or not isinstance(request, Request) or run.next is Next.ADVANCE:
        return (job.job_id, 0)
    assert isinstance(run.sampling, Sampling)
    base = (run.next, id(run.model), request.loras)
    if run.next is Next.ENCODE:
        return ((*base, *encoding_key(request)), 0 if known_encoding(request) else 1)
    if run.next is Next.STEP:
        return ((*base, run.sampling.alike), run.sampling.rows)
    return ((*base, request.plan.drawn), 1)
