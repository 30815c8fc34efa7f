"""`system:status`: what the platform is doing, put together from the mirrors and pushed when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from reverie_gateway.events import encode
from reverie_gateway.hub import Hub
from reverie_gateway.identity import Action, Identity, may
from reverie_gateway.storage_probe import StorageProbe
from reverie_jobs.mirror import Change, JobMirror, WorkerMirror
from reverie_protocol.jobs import Job, Vram, Worker, WorkerState
from reverie_protocol.server_messages import QueueRow, QueueState, SystemStatus
from reverie_runtime.clock import Clock

#: Changes within this time are told together, in seconds.
DEBOUNCE_S = 0.1
#: A worker beats every 0.5 to 1 s; one that has not for this long is not counted.
ALIVE_S = 3.0
#: Rows in `queueState.jobs`; `pending` and `running` count all.
MAX_ROWS = 50

#: Whose view of the queue it is: owner and whether he is an administrator.
Viewer = tuple[str, bool]


class StatusBoard:
    """Composes the status and pushes it to every session of the hub when it has changed."""

    def __init__(
        self,
        jobs: JobMirror,
        workers: WorkerMirror,
        storage: StorageProbe,
        *,
        clock: Clock,
        version: str,
    ) -> None:
        self._jobs = jobs
        self._workers = workers
        self._storage = storage
        self._clock = clock
        self._version = version
        self._beats: dict[str, float] = {}
        self._dirty = asyncio.Event()
        self._told: dict[Viewer, str] = {}
        workers.listen(self._on_worker)
        jobs.listen(self._on_job)
        storage.listen(self._dirty.set)
        for worker in workers:
            self._beats[f"{worker.name}.{worker.incarnation}"] = clock.monotonic()

    def message(self, viewer: Identity) -> SystemStatus:
        """The status as its viewer may see it."""
        workers = self._alive()
        return SystemStatus(
            mode=next((worker.mode for worker in workers if worker.mode is not None), None),
            vram=total_vram(workers),
            storage=self._storage.health,
            queue_state=queue_state(self._jobs, viewer),
            workers=len(workers),
            version=self._version,
        )

    @asynccontextmanager
    async def run(self, hub: Hub) -> AsyncIterator[None]:
        """Push changes while the context is open."""
        task = asyncio.create_task(self._loop(hub), name="status-board")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _loop(self, hub: Hub) -> None:
        while True:
            try:
                async with asyncio.timeout(ALIVE_S / 2):  # silence is a change too
                    await self._dirty.wait()
            except TimeoutError:
                pass
            await self._clock.sleep(DEBOUNCE_S)
            self._dirty.clear()
            self._push(hub)

    def _push(self, hub: Hub) -> None:
        viewers = {_viewer(session.identity): session.identity for session in hub}
        frames = {viewer: encode(self.message(identity)) for viewer, identity in viewers.items()}
        for session in hub:
            viewer = _viewer(session.identity)
            if frames[viewer] != self._told.get(viewer):
                session.deliver_status(frames[viewer])
        self._told = frames

    def _on_job(self, change: Change[Job]) -> None:
        self._dirty.set()

    def _on_worker(self, change: Change[Worker]) -> None:
        if change.record is None:
            self._beats.pop(change.key, None)
        else:
            self._beats[change.key] = self._clock.monotonic()
        self._dirty.set()

    def _alive(self) -> list[Worker]:
        """Workers that beat lately and take jobs, in a fixed order."""
        since = self._clock.monotonic() - ALIVE_S
        heard = (self._workers.get(key) for key, beat in sorted(self._beats.items()) if beat >= since)
        return [worker for worker in heard if worker is not None and worker.state is WorkerState.READY]


def queue_state(jobs: JobMirror, viewer: Identity) -> QueueState:
    """The queue as its viewer may see it: others' rows carry no id."""
    running = sorted(jobs.running.values(), key=lambda job: (job.started_at or 0.0, job.id))
    queued = jobs.waiting.order(MAX_ROWS)
    rows = [(0, job) for job in running] + list(enumerate(queued))
    return QueueState(
        pending=len(jobs.queued),
        running=len(running),
        depth=len(jobs.queued) + len(running),
        jobs=tuple(_row(job, place, viewer) for place, job in rows[:MAX_ROWS]),
    )


def total_vram(workers: Sequence[Worker]) -> Vram:
    """Accelerator memory of all workers together; what one worker says if there is only one."""
    accelerated = [worker.vram for worker in workers if worker.vram.total_gb > 0]
    if len(accelerated) < 2:
        return next(iter(accelerated), Vram())
    total = sum(vram.total_gb for vram in accelerated)
    used = sum(vram.used_gb for vram in accelerated)
    return Vram(
        device=", ".join(vram.device for vram in accelerated),
        total_gb=total,
        allocated_gb=sum(vram.allocated_gb for vram in accelerated),
        used_gb=used,
        available_gb=sum(vram.available_gb for vram in accelerated),
        usage_percent=round(100 * used / total, 1),
    )


def _viewer(identity: Identity) -> Viewer:
    return identity.owner, identity.admin


def _row(job: Job, place: int, viewer: Identity) -> QueueRow:
    return QueueRow(
        type=job.type,
        state=job.state,
        priority=job.priority,
        position=place,
        enqueued_at=job.enqueued_at,
        job_id=job.id if may(viewer, Action.SEE, job.owner) else None,
    )
