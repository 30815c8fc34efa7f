"""What a client can do with jobs: submit, find, list, move, cancel, retry; each for its owner only."""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial

import msgspec
import structlog

from reverie_gateway.admission import (
    require_known,
    require_makeable,
    require_room,
    require_storable,
    require_timely,
)
from reverie_gateway.audit import Auditor
from reverie_gateway.comfy_preflight import Preflight
from reverie_gateway.disowned import Disowned
from reverie_gateway.identity import Action, Identity, may
from reverie_gateway.inputs import Inputs
from reverie_gateway.moves import Move, moved
from reverie_gateway.reach import reachable, shown
from reverie_gateway.standings import Standings
from reverie_jobs.admission import require_servable
from reverie_jobs.controls import ControlMirror, require_open
from reverie_jobs.mirror import JobMirror, WorkerMirror
from reverie_jobs.placing import Place
from reverie_jobs.store import JobStore, Stored, Submitted
from reverie_jobs.submission import new_job, retry_of, switch_job
from reverie_jobs.transitions import request_cancel
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import ComfyParams, Job, JobState, Lane
from reverie_protocol.subjects import WorkerHint, worker_ctl
from reverie_runtime.bus.port import Bus, BusError
from reverie_runtime.clock import Clock

#: What may be done again: only what ended without its result.
RETRIED_STATES = (JobState.FAILED, JobState.CANCELLED)

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

log = structlog.get_logger(__name__)


class Jobs:
    """Jobs of all owners, through the store; reads come from the mirror where it cannot be out of date."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        mirror: JobMirror,
        workers: WorkerMirror,
        *,
        auditor: Auditor,
        controls: ControlMirror,
        inputs: Inputs,
        standings: Standings,
        comfy_preflight: Preflight,
        clock: Clock,
        max_queued: int,
        random_bits: Callable[[int], int],
    ) -> None:
        self._bus = bus
        self._store = store
        self._mirror = mirror
        self._workers = workers
        self._auditor = auditor
        self._controls = controls
        self._inputs = inputs
        self._standings = standings
        self._clock = clock
        self._max_queued = max_queued
        self._random_bits = random_bits
        self._submitting = 0
        self._chores: set[asyncio.Task[None]] = set()
        self._comfy_preflight = comfy_preflight
        self._disowned = Disowned(mirror, on_ghost=self._cancel_ghost)

    def draft(self, submit: JobSubmit, *, owner: str, must_run_now: bool = False) -> Job:
        """The record of a submit that may be taken; ReverieError says why it may not.

        With `must_run_now` a worker has to be there; otherwise the job may wait for one.
        """
        job = new_job(submit, owner=owner, now=self._clock.time(), random_bits=self._random_bits)
        self._require_takeable(job, must_run_now=must_run_now)
        return job

    def draft_all(self, submits: Sequence[JobSubmit], *, owner: str, must_run_now: bool = False) -> list[Job]:
        """The records of submits that are taken together; `queue_full` unless there is room for all of them."""
        drafts = [self.draft(submit, owner=owner, must_run_now=must_run_now) for submit in submits]
        new = sum(self._mirror.get(draft.id) is None for draft in drafts)
        if new:
            taken = len(self._mirror.queued) + self._submitting
            require_room(taken + new - 1, max_queued=self._max_queued)
        return drafts

    def _require_takeable(self, job: Job, *, must_run_now: bool = False) -> None:
        """Raise the ReverieError that says why a new job is not taken; the repetition of an old one always is."""
        require_storable(job)
        require_makeable(job)
        if self._mirror.get(job.id) is not None:
            return
        require_timely(job, now=job.created_at)
        require_open(self._controls.control, job.priority)
        if must_run_now:
            require_servable(job, self._workers)
        else:
            require_known(job, self._workers)
        require_room(len(self._mirror.queued) + self._submitting, max_queued=self._max_queued)

    async def switch(self, mode: str, *, worker: str, by: Identity) -> Job:
        """Queue the switch of one worker to a mode that it has."""
        now = self._clock.time()
        job = switch_job(mode, worker=worker, owner=by.owner, now=now, random_bits=self._random_bits)
        return (await self.submit(job)).stored.job

    async def preflight(self, job: Job, *, by: Identity) -> None:
        """Before a drafted job is submitted: ask who will run it whether it can run, where its kind asks for that.

        A repetition is not asked about: its job is there.  `forbidden`, `workflow_not_found`, `workflow_invalid`,
        `invalid_field`, `comfy_unreachable`.
        """
        if not isinstance(job.params, ComfyParams) or self._mirror.get(job.id) is not None:
            return
        may_send = may(by, Action.SEND_GRAPHS)
        if job.params.workflow is not None and not may_send:
            raise ReverieError(
                ErrorCode.FORBIDDEN, "graphs of one's own are for administrators; name a workflow"
            )
        if job.idempotency_key is not None:
            async with reachable(self._bus):
                if await self._store.get(job.id) is not None:
                    return
        await self._comfy_preflight.require_runnable(job.params, may_send_graphs=may_send)

    async def submit(self, job: Job) -> Submitted:
        """Make a drafted job durable; `service_unavailable` within `BUS_TIMEOUT_S` while NATS is away.

        `file_not_found` where it names a picture that is not there for its owner.
        """
        job = await self._with_inputs(job)
        self._submitting += 1
        writing = asyncio.ensure_future(self._store.submit(job))
        writing.add_done_callback(_retrieve)
        try:
            async with reachable(self._bus):
                return await asyncio.shield(writing)
        except ReverieError as error:
            if error.code is ErrorCode.SERVICE_UNAVAILABLE:
                self._disowned.add(job)
            raise
        finally:
            self._submitting -= 1

    def disown(self, job: Job) -> None:
        """A drafted job whose submit failed must not run: no second try finds it, although it has a key."""
        self._disowned.add(job, found_again=False)

    async def _with_inputs(self, job: Job) -> Job:
        """The job with storage keys for references; a repetition may come when its reference has expired."""
        if self._mirror.get(job.id) is not None:
            return job
        try:
            return await self._inputs.settled(job)
        except ReverieError as error:
            if job.idempotency_key is None or error.code is not ErrorCode.FILE_NOT_FOUND:
                raise
            async with reachable(self._bus):
                if await self._store.get(job.id) is None:
                    raise
            return job

    async def find(self, job_id: str, *, by: Identity) -> Stored:
        """The job as it stands; `job_not_found` also where it is somebody else's."""
        _require_id(job_id)
        mirrored = self._mirror.get(job_id)
        if mirrored is not None and not may(by, Action.SEE, mirrored.owner):
            mirrored = None  # as if it were not there, also in how it is looked for
        stored = None if mirrored is None else Stored(mirrored, self._mirror.revision_of(job_id))
        if stored is None or not stored.job.state.terminal:
            try:
                async with reachable(self._bus):
                    stored = await self._store.get(job_id)
            except ReverieError:
                if stored is None:
                    raise
        if stored is None or not may(by, Action.SEE, stored.job.owner):
            raise _not_found(job_id)
        return stored

    @property
    def revision(self) -> int:
        """Latest revision of the event log that this gateway has seen."""
        return self._mirror.revision

    @property
    def epoch(self) -> str:
        """Names the bucket that revisions belong to; another one after the server was wiped."""
        return self._mirror.epoch

    def mirrored(self, job_id: str) -> Job | None:
        """The job as mirrored, whoever owns it."""
        return self._mirror.get(job_id)

    def place_of(self, job: Job) -> int | None:
        """Where a job stands in the queue, 0 is next; None if it does not wait."""
        return self._standings.place_of(job)

    async def cancel(self, job_id: str, *, by: Identity) -> Stored:
        """Ask a job to stop: at once if it waits, at its next step if it runs.  Idempotent."""

        def change(job: Job) -> Job | None:
            if not may(by, Action.CANCEL, job.owner):
                raise _not_found(job_id)
            return request_cancel(job, now=self._clock.time())

        _require_id(job_id)
        async with reachable(self._bus):
            stored = await self._store.apply(job_id, change)
        self._audit("job.cancel", stored.job, by)
        if stored.job.state is JobState.RUNNING and stored.job.worker:
            await self._hint(stored.job.worker, job_id)
        return stored

    async def move(self, job_id: str, move: Move, *, by: Identity) -> Stored:
        """Put a job into another lane or place; idempotent where the place is one beside others or at an end."""

        def change(job: Job) -> Job | None:
            if not may(by, Action.REPRIORITISE, job.owner):
                raise _not_found(job_id)
            lane = job.priority if move.lane is None else move.lane
            places = self._other_places(job, lane) if move.placed else []
            return moved(job, move, places, now=self._clock.time())

        _require_id(job_id)
        async with reachable(self._bus):
            stored = await self._store.apply(job_id, change)
        self._audit("job.priority", stored.job, by)
        # So that the place that the answer tells is the new one.
        await shown(self._mirror, lambda: self._mirror.revision_of(job_id) >= stored.revision)
        return stored

    def _other_places(self, job: Job, lane: Lane) -> list[Place]:
        """Places of the owner's other jobs in a lane: between owners turns decide, not places."""
        queued = self._mirror.queued
        places = self._mirror.waiting.places(lane)
        return [place for place in places if place[1] != job.id and queued[place[1]].owner == job.owner]

    async def retry(self, job_id: str, *, by: Identity) -> Submitted:
        """Do a failed or cancelled job again, as a new job; asking twice finds the first retry (docs/adr/0008)."""
        ended = (await self.find(job_id, by=by)).job
        if not may(by, Action.RETRY, ended.owner):
            raise _not_found(job_id)
        if ended.state not in RETRIED_STATES:
            raise ReverieError(
                ErrorCode.JOB_NOT_RETRYABLE,
                f"the job is {ended.state}; only a failed or cancelled one is retried",
                job_id=job_id,
            )
        again = retry_of(ended, now=self._clock.time())
        self._require_takeable(again)
        submitted = await self.submit(again)
        self._audit("job.retry", ended, by)
        return submitted

    def page(
        self,
        owner: str | None,
        *,
        by: Identity,
        states: Collection[JobState],
        after: tuple[float, str] | None,
        limit: int,
    ) -> tuple[list[Job], int]:
        """Up to `limit` jobs of an owner that sort behind `after`, newest first, and how many there are in all.

        No owner means everybody, no states means all of them; of all that, what `by` may see.  Drafts of dreams are
        nobody's.
        """
        found = [
            job
            for job in self._mirror
            if owner in (None, job.owner)
            and job.session is None
            and (not states or job.state in states)
            and may(by, Action.SEE, job.owner)
        ]
        behind = found if after is None else [job for job in found if newest_first(job) > after]
        return heapq.nsmallest(limit, behind, key=newest_first), len(found)

    def revision_of(self, job_id: str) -> int:
        """Bucket revision of a mirrored job."""
        return self._mirror.revision_of(job_id)

    async def close(self) -> None:
        """Let go of what still runs in the background; idempotent."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)

    def _audit(self, action: str, job: Job, by: Identity) -> None:
        """What an administrator did to another's job; one's own jobs are one's own business."""
        if job.owner != by.owner:
            self._auditor.note(action, by, target=job.id, detail=f"a job of {job.owner}")

    async def _hint(self, worker: str, job_id: str) -> None:
        try:
            await self._bus.publish(worker_ctl(worker), msgspec.json.encode(WorkerHint(job_id)))
        except BusError:
            return  # a lost hint only delays: the worker reads the record

    def _cancel_ghost(self, job: Job) -> None:
        log.warning("cancelling a job whose submit was refused", job_id=job.id)
        chore = asyncio.create_task(self._cancel_quietly(job), name=f"ghost-{job.id}")
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _cancel_quietly(self, job: Job) -> None:
        stop = partial(request_cancel, now=self._clock.time())
        try:
            await self._store.apply(job.id, stop)
        except (BusError, ReverieError) as error:
            log.warning("a refused job may run", job_id=job.id, reason=str(error))


def newest_first(job: Job) -> tuple[float, str]:
    """Sort key of lists; the id breaks ties the same way on every gateway."""
    return (-job.created_at, job.id)


def _retrieve(writing: asyncio.Future[Submitted]) -> None:
    """Mark the outcome of a write as seen, also where nobody waits for it any more."""
    if not writing.cancelled():
        writing.exception()


def _require_id(job_id: str) -> None:
    """What cannot be the id of a job names none, and must not reach the bus as a part of a subject."""
    if _JOB_ID.fullmatch(job_id) is None:
        raise _not_found(job_id)


def _not_found(job_id: str) -> ReverieError:
    return ReverieError(ErrorCode.JOB_NOT_FOUND, f"there is no job {job_id[:64]!r}")
