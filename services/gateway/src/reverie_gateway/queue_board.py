"""`queue:state`: the queue as each owner may see it, put together from the mirrors and pushed when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec

from reverie_gateway.eta import eta_seconds
from reverie_gateway.events import encode
from reverie_gateway.hub import Hub
from reverie_gateway.identity import Action, Identity, may
from reverie_jobs.controls import ControlMirror, closed_lanes
from reverie_jobs.mirror import JobMirror
from reverie_protocol.controls import QueueControl
from reverie_protocol.jobs import Job, Lane
from reverie_protocol.server_messages import QueueMirror, QueueRow, QueueState, QueueStateChanged
from reverie_protocol.subjects import QUEUE_STATE
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock

#: Changes within this time are told together, in seconds.
DEBOUNCE_S = 0.1
#: While jobs run, their expected ends are told again this often, in seconds.
REFRESH_S = 2.0
#: What was put together may be shown again for this long, in seconds, where no record has changed.
FRESH_S = 1.0
#: Rows at most; the counts are of all jobs.
MAX_ROWS = 50
KEY = "queue:state"

_Viewer = tuple[str, bool]
#: Everybody who sees no id.
_STRANGER: _Viewer = ("", False)
_NOBODY = Identity("")


class _Mirrored(msgspec.Struct, frozen=True):
    """What a push shows, before anybody's ids are taken out."""

    state: QueueState
    owners: tuple[str, ...]


class QueueBoard:
    """Composes the state of the queue, and pushes it to every session of the hub when it has changed."""

    def __init__(self, bus: Bus, jobs: JobMirror, controls: ControlMirror, hub: Hub, *, clock: Clock) -> None:
        self._bus = bus
        self._jobs = jobs
        self._controls = controls
        self._hub = hub
        self._clock = clock
        self._dirty = asyncio.Event()
        self._told: dict[_Viewer, bytes] = {}
        self._mirrored: _Mirrored | None = None
        self._composed_at = 0.0
        self._published: QueueState | None = None
        jobs.listen(lambda _: self._on_change())
        controls.listen(lambda _: self._on_change())

    @property
    def control(self) -> QueueControl:
        """The gates that are in force."""
        return self._controls.control

    def state(self, by: Identity) -> QueueState:
        """The queue as somebody may see it: the rows of jobs that are not his to see carry no id."""
        return _seen_by(self._latest(), by)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Push changes while the context is open."""
        async with acting(self._round, name="queue-board", clock=self._clock):
            yield

    async def _round(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_S if self._jobs.running else None):
                await self._dirty.wait()
        await self._clock.sleep(DEBOUNCE_S)
        self._dirty.clear()
        self._push()
        await self._publish()

    def _push(self) -> None:
        """One frame for each viewer who sees ids in it, and one for all the others."""
        mirrored = self._latest()
        frames: dict[_Viewer, bytes] = {}
        told: dict[_Viewer, bytes] = {}
        for session in self._hub:
            by = session.identity
            viewer = (by.owner, by.admin)
            seen = viewer if by.admin or by.owner in mirrored.owners else _STRANGER
            if seen not in frames:
                frames[seen] = _frame(_seen_by(mirrored, by))
            told[viewer] = frames[seen]
            if told[viewer] != self._told.get(viewer):
                session.outbox.put_latest(KEY, told[viewer])
        self._told = told

    async def _publish(self) -> None:
        """Tell other services, without anybody's ids; whoever wants more follows `job.state.>`."""
        state = _seen_by(self._latest(), _NOBODY)
        if state == self._published:
            return
        mirror = QueueMirror(
            pending=state.pending,
            running=state.running,
            depth=state.depth,
            paused=state.paused,
            jobs=state.jobs,
            seq=self._jobs.revision,
            epoch=self._jobs.epoch,
        )
        await self._bus.publish(QUEUE_STATE, msgspec.json.encode(mirror))
        self._published = state

    def _on_change(self) -> None:
        self._mirrored = None
        self._dirty.set()

    def _latest(self) -> _Mirrored:
        """Put together once for however many ask: among thousands of owners it costs milliseconds."""
        now = self._clock.monotonic()
        if self._mirrored is None or now - self._composed_at > FRESH_S:
            self._mirrored, self._composed_at = self._compose(), now
        return self._mirrored

    def _compose(self) -> _Mirrored:
        running = sorted(self._jobs.running.values(), key=lambda job: (job.started_at or 0.0, job.id))
        queued = self._jobs.waiting.order(MAX_ROWS, now=self._clock.time())
        placed = [*((0, job) for job in running), *enumerate(queued)][:MAX_ROWS]
        state = QueueState(
            pending=len(self._jobs.queued),
            running=len(running),
            depth=len(self._jobs.queued) + len(running),
            paused=closed_lanes(self.control, worker="") == frozenset(Lane),
            jobs=tuple(self._row(job, place) for place, job in placed),
        )
        return _Mirrored(state, tuple(job.owner for _, job in placed))

    def _row(self, job: Job, place: int) -> QueueRow:
        return QueueRow(
            type=job.type,
            state=job.state,
            priority=job.priority,
            position=place,
            enqueued_at=job.enqueued_at,
            job_id=job.id,
            eta_seconds=eta_seconds(job, self._hub.progress_of(job)),
        )


def _seen_by(mirrored: _Mirrored, by: Identity) -> QueueState:
    rows = tuple(
        row if may(by, Action.SEE, owner) else msgspec.structs.replace(row, job_id=None)
        for row, owner in zip(mirrored.state.jobs, mirrored.owners, strict=True)
    )
    return msgspec.structs.replace(mirrored.state, jobs=rows)


def _frame(state: QueueState) -> bytes:
    return encode(
        QueueStateChanged(
            pending=state.pending,
            running=state.running,
            depth=state.depth,
            paused=state.paused,
            jobs=state.jobs,
        )
    )
