"""The jobs of one A1111 request, found again by any gateway: their idempotency keys hold the request's task id."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from functools import partial
from time import gmtime, strftime
from typing import Final

import msgspec

from reverie_gateway.eta import eta_seconds
from reverie_gateway.hub import Hub
from reverie_jobs.mirror import Change, JobMirror
from reverie_jobs.store import job_id_of
from reverie_protocol.jobs import Job, JobState, JobType, Lane
from reverie_protocol.preview import decode_preview
from reverie_protocol.sdapi_bodies import ProgressAnswer, ProgressState, TaskProgress

_MARK: Final = "sdapi"
_PARTS: Final = 5
_PICTURES: Final = (JobType.GENERATE, JobType.SR)


class Task(msgspec.Struct, frozen=True):
    """One request: its `run` tells it from others under the same id; `jobs` are those that are known."""

    id: str
    run: str
    count: int
    jobs: tuple[Job, ...]

    @property
    def ended(self) -> int:
        """How many of its jobs are over."""
        return sum(job.state.terminal for job in self.jobs)

    @property
    def running(self) -> Job | None:
        """The first that runs."""
        return next((job for job in self.jobs if job.state is JobState.RUNNING), None)


def keys_of(task_id: str, run: str, count: int) -> list[str]:
    """Idempotency keys of a request's jobs; neither id nor run has a space in it."""
    return [f"{_MARK} {task_id} {run} {number} {count}" for number in range(count)]


class SdapiTasks:
    """Looks requests up in the mirror, and keeps the latest preview of those whose progress is asked for."""

    def __init__(self, jobs: JobMirror, hub: Hub) -> None:
        self._jobs = jobs
        self._hub = hub
        self._previews: dict[str, bytes] = {}
        self._watched: set[str] = set()
        jobs.listen(self._on_change)

    def progress(self, owner: str, *, task_id: str | None, with_picture: bool) -> ProgressAnswer:
        """How an owner's request goes: the one with this id, else the one that runs, else the next; or zeros."""
        task = self._find(owner, task_id)
        if task is None or task.ended == task.count:
            return ProgressAnswer()
        running = task.running
        now = self._hub.progress_of(running) if running else None
        alone = task.ended == task.count - 1
        first = task.jobs[0]
        return ProgressAnswer(
            progress=round((task.ended + (now.progress if now else 0.0)) / task.count, 4),
            eta_relative=(eta_seconds(running, now) or 0.0) if running and alone else 0.0,
            state=ProgressState(
                interrupted=any(job.cancel or job.state is JobState.CANCELLED for job in task.jobs),
                job=task.id,
                job_count=task.count,
                job_timestamp=strftime("%Y%m%d%H%M%S", gmtime(first.created_at)),
                job_no=task.ended,
                sampling_step=now.step if now else 0,
                sampling_steps=now.steps if now else 0,
            ),
            current_image=self._picture(running) if running and with_picture else None,
            current_task=task.id,
        )

    def task_progress(self, owner: str, task_id: str, *, with_picture: bool) -> TaskProgress:
        """The same of one request, as A1111's own page asks for it; an unknown one is neither here nor there."""
        task = self._find(owner, task_id)
        if task is None:
            return TaskProgress(active=False, queued=False, completed=False, textinfo="Waiting...")
        if task.ended == task.count:
            return TaskProgress(active=False, queued=False, completed=True)
        if not task.ended and task.running is None:
            return TaskProgress(active=False, queued=True, completed=False, textinfo="In queue...")
        told = self.progress(owner, task_id=task_id, with_picture=with_picture)
        picture = told.current_image
        return TaskProgress(
            active=True,
            queued=False,
            completed=False,
            progress=told.progress,
            eta=told.eta_relative or None,
            live_preview=None if picture is None else f"data:image/jpeg;base64,{picture}",
            id_live_preview=None if picture is None else told.state.sampling_step,
        )

    def to_interrupt(self, owner: str, *, running_only: bool = False) -> list[str]:
        """An owner's pictures in the making, other than background work, and what waits of A1111 requests."""
        running = [
            job.id
            for job in self._jobs.running.values()
            if job.owner == owner and job.type in _PICTURES and job.priority < Lane.BACKGROUND
        ]
        if running_only:
            return running
        waiting = self._jobs.queued.values()
        # What waits goes first, or it would begin when its turn comes.
        return [job.id for job in waiting if job.owner == owner and _parts(job)] + running

    def _find(self, owner: str, task_id: str | None) -> Task | None:
        running = sorted(self._jobs.running.values(), key=lambda job: job.created_at)
        job = _first(running, owner, task_id)
        if job is None:
            queued = (job for job in self._jobs.queued.values() if _is_of(job, owner, task_id))
            job = min(queued, key=lambda job: (job.priority, job.position), default=None)
        if job is None and task_id is not None:  # who names a request wants to know that it is over too
            over = (job for job in self._jobs if _is_of(job, owner, task_id))
            job = max(over, key=lambda job: job.created_at, default=None)
        parts = None if job is None else _parts(job)
        return None if parts is None else self._task(owner, parts)

    def _task(self, owner: str, parts: list[str]) -> Task | None:
        """The request with these parts; None where its keys lead to no job, as a client's own may."""
        _, task_id, run, _, count = parts
        found = (self._jobs.get(job_id_of(owner, key)) for key in keys_of(task_id, run, int(count)))
        known = tuple(job for job in found if job is not None)
        return Task(task_id, run, int(count), known) if known else None

    def _picture(self, job: Job) -> str | None:
        """The latest preview in base64; previews are made from the first time that somebody asks."""
        if job.id not in self._watched:
            self._watched.add(job.id)
            self._hub.view(job.id, partial(self._keep, job.id))
        picture = self._previews.get(job.id)
        return None if picture is None else b64encode(picture).decode()

    def _keep(self, job_id: str, frame: bytes) -> None:
        self._previews[job_id] = decode_preview(frame)[1]

    def _on_change(self, change: Change[Job]) -> None:
        if change.record is None or change.record.state.terminal:
            self._watched.discard(change.key)
            self._previews.pop(change.key, None)


def _first(jobs: Iterable[Job], owner: str, task_id: str | None) -> Job | None:
    return next((job for job in jobs if _is_of(job, owner, task_id)), None)


def _is_of(job: Job, owner: str, task_id: str | None) -> bool:
    """Whether a job is of an owner's request, of that name if there is one."""
    if job.owner != owner:
        return False
    parts = _parts(job)
    return parts is not None and task_id in (None, parts[1])


def _parts(job: Job) -> list[str] | None:
    """The parts of a key of ours; a client's own key may look like anything."""
    parts = (job.idempotency_key or "").split(" ")
    if len(parts) != _PARTS or parts[0] != _MARK:
        return None
    number, count = parts[3:]
    if not all(text.isascii() and text.isdigit() and len(text) < 3 for text in (number, count)):
        return None
    return parts if int(number) < int(count) else None
