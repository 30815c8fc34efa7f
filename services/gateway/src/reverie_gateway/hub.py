"""Between the bus and the sockets: each event is encoded once and goes to all sockets of its owner.

A mirror change, a progress message or a preview comes in on the event loop and is in the outboxes before anything
else runs, so a snapshot (`join`) and the live events after it meet without a gap and without a duplicate.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator

import msgspec
import structlog

from reverie_gateway.audience import Audience
from reverie_gateway.event_log import EventLog
from reverie_gateway.events import Event, change_event, progress_event, state_event
from reverie_gateway.frame import binary_frame
from reverie_gateway.holes import Holes
from reverie_gateway.identity import Identity
from reverie_gateway.session import Session
from reverie_gateway.writer import Turn
from reverie_jobs.mirror import Change, JobMirror
from reverie_protocol.errors import CLOSE_OVERLOADED
from reverie_protocol.jobs import Job, JobState, Progress
from reverie_runtime.bus.port import Message
from reverie_runtime.clock import Clock

#: How far down the queue a new socket is told of its owner's waiting jobs; running ones are all told.
SNAPSHOT_QUEUED = 100
#: A resume that would take more events is answered with the current state instead.
MAX_REPLAYED = 20_000
#: How long a resume waits for a mirror that is behind the gateway its cursor came from, in seconds.
REACH_S = 2.0

log = structlog.get_logger(__name__)


class Hub:
    """The sessions of this gateway by owner, what happened before they came, and how running jobs progress.

    Made before the mirror follows its bucket, so that the log has all the history that the bucket kept.
    """

    def __init__(
        self, jobs: JobMirror, log: EventLog, turn: Turn, *, on_watch: Callable[[str], None], clock: Clock
    ) -> None:
        self._jobs = jobs
        self._log = log
        self._on_watch = on_watch
        self._clock = clock
        self._epoch = ""
        self.holes = Holes(jobs)
        self._turn = turn
        self._audiences: dict[str, Audience] = {}
        self._administrators: dict[Session, None] = {}
        self._viewers: dict[str, list[Callable[[bytes], None]]] = {}
        self._progress: dict[str, Progress] = {}
        self._progress_decoder = msgspec.json.Decoder(Progress)
        jobs.listen(self._on_change)

    def __iter__(self) -> Iterator[Session]:
        """Every session."""
        return (session for audience in self._audiences.values() for session in tuple(audience))

    def __len__(self) -> int:
        return sum(map(len, self._audiences.values()))

    def of_owner(self, owner: str) -> tuple[Session, ...]:
        """The sessions of one owner."""
        return tuple(self._audiences.get(owner, ()))

    def tell(self, key: str, frame_of: Callable[[Identity], bytes]) -> None:
        """Push a frame to every session: the latest of its key, as its viewer may see it."""
        for audience in tuple(self._audiences.values()):
            audience.tell(key, frame_of)

    def join(self, session: Session) -> Audience:
        """Tell a new session of its owner's running and next waiting jobs, then keep it informed."""
        if not session.waiting:
            self.recount(session)
        audience = self._audiences.get(session.owner)
        if audience is None:
            audience = self._audiences[session.owner] = Audience(self._turn)
        audience.join(session)
        if session.identity.admin:
            self._administrators[session] = None
        return audience

    def leave(self, session: Session) -> None:
        """Stop informing a session; idempotent."""
        self._administrators.pop(session, None)
        audience = self._audiences.get(session.owner)
        if audience is not None:
            audience.leave(session)
            if not audience:
                del self._audiences[session.owner]

    def open(self, session: Session) -> None:
        """A session whose client does not resume is told the current state; idempotent."""
        if session.waiting and not session.resuming:
            session.open(self._snapshot(session.owner))

    def recount(self, session: Session) -> None:
        """Tell a session the current state of its owner's unfinished jobs."""
        for event in self._snapshot(session.owner):
            session.deliver(event)

    async def resume(self, session: Session, cursor: int, epoch: str | None) -> list[Event] | None:
        """An owner's state transitions after `cursor`, each once and in order; None if some may be gone.

        An `epoch` other than the bucket's own means that the cursor belongs to a bucket that is no more.  A cursor
        that a quicker gateway gave is waited for.
        """
        if epoch is not None and epoch != self._jobs.epoch:
            return None
        session.resuming = True
        try:
            await self._reach(cursor)
        finally:
            session.resuming = False
        self._follow_epoch()
        if cursor < self._jobs.whole_since:
            return None
        missed = self._log.since(session.owner, cursor, head=self._jobs.revision, now=self._clock.time())
        return None if missed is None or len(missed) > MAX_REPLAYED else missed

    def catch_up(self, session: Session, missed: list[Event] | None) -> None:
        """Send a session what `resume` found, or else the current state."""
        if missed is not None:
            session.catch_up(missed)
            for event in self._running_progress(session.owner):
                session.deliver(event)
        elif session.waiting:
            self.open(session)
        else:
            self.recount(session)

    async def _reach(self, cursor: int) -> None:
        """Wait a little for the mirror to come as far as a cursor that another gateway gave."""
        if cursor <= self._jobs.revision:
            return
        reached = asyncio.Event()
        stop = self._jobs.listen(lambda change: reached.set() if change.revision >= cursor else None)
        try:
            async with asyncio.timeout(REACH_S):
                await reached.wait()
        except TimeoutError:
            return
        finally:
            stop()

    def _snapshot(self, owner: str) -> list[Event]:
        """How an owner's unfinished jobs stand, in the order of their revisions: a cursor passes over none."""
        running = [job for job in self._jobs.running.values() if job.owner == owner]
        queued = heapq.nsmallest(
            SNAPSHOT_QUEUED,
            (job for job in self._jobs.queued.values() if job.owner == owner),
            key=lambda job: (job.priority, job.position),
        )
        events = (event for job in (*running, *queued) for event in self.current(job))
        return sorted(events, key=lambda event: event.seq)

    def story(self, job: Job) -> list[Event]:
        """All that is kept of what happened to a job, at least how it stands now, and its latest progress."""
        revision = self._jobs.revision_of(job.id)
        kept = self._log.of_job(job.owner, job.id)
        if not kept or kept[-1].seq != revision:
            kept.append(state_event(job, revision))
        return [*kept, *self._latest_progress(job)]

    def _running_progress(self, owner: str) -> list[Event]:
        """The latest progress of each of an owner's running jobs."""
        own = (job for job in self._jobs.running.values() if job.owner == owner)
        return [event for job in own for event in self._latest_progress(job)]

    def current(self, job: Job) -> list[Event]:
        """The events that say how a job stands now."""
        return [state_event(job, self._jobs.revision_of(job.id)), *self._latest_progress(job)]

    def _latest_progress(self, job: Job) -> list[Event]:
        progress = self.progress_of(job)
        return [] if progress is None else [progress_event(job, progress, self._jobs.revision_of(job.id))]

    def progress_of(self, job: Job) -> Progress | None:
        """Latest progress of a job's present attempt, None if it does not run or has not said anything."""
        progress = self._progress.get(job.id)
        if progress is None or job.state is not JobState.RUNNING or progress.attempt != job.attempt:
            return None
        return progress

    def watched(self) -> Iterator[str]:
        """Running jobs whose previews somebody here wants."""
        return (job.id for job in self._jobs.running.values() if self._is_watched(job))

    def view(self, job_id: str, on_preview: Callable[[bytes], None]) -> Callable[[], None]:
        """Call with each preview frame of a job until it ends; the returned function stops that (idempotent)."""
        viewers = self._viewers.setdefault(job_id, [])
        viewers.append(on_preview)
        if job_id in self._jobs.running:
            self._on_watch(job_id)

        def stop() -> None:
            if on_preview in viewers:
                viewers.remove(on_preview)
            if not viewers and self._viewers.get(job_id) is viewers:
                del self._viewers[job_id]

        return stop

    def interest_changed(self) -> None:
        """A session wants other previews than before: ask for them now."""
        for job_id in self.watched():
            self._on_watch(job_id)

    def on_progress(self, message: Message) -> None:
        """`job.progress.<id>` from a worker."""
        try:
            progress = self._progress_decoder.decode(message.data)
        except msgspec.DecodeError as error:
            log.warning("unreadable progress ignored", subject=message.subject, reason=str(error))
            return
        job = self._jobs.get(progress.job_id)
        if job is None or job.state.terminal or progress.attempt < job.attempt:
            return
        self._progress[job.id] = progress
        if self.progress_of(job) is not None:  # else the claim itself has not reached the mirror yet
            self._broadcast(progress_event(job, progress, self._jobs.revision_of(job.id)))

    def on_preview(self, message: Message) -> None:
        """`job.preview.<id>` from a worker: the bytes go to the sockets as they are."""
        job = self._jobs.get(message.subject.rpartition(".")[2])
        if job is None or job.state is not JobState.RUNNING:
            return
        for on_preview in tuple(self._viewers.get(job.id, ())):
            on_preview(message.data)
        frame = binary_frame(message.data)
        for session in self._preview_audience(job):
            session.deliver_preview(job.id, frame)

    def _on_change(self, change: Change[Job]) -> None:
        job = change.record
        if job is None or job.state is not JobState.RUNNING:
            self._progress.pop(change.key, None)
        if job is None or job.state.terminal:
            self._viewers.pop(change.key, None)
            for session in self._administrators:
                session.forget(change.key)
        # A draft of a dream is nobody's: nobody resumes it, and a day of dreaming would fill the log.
        event = None if job is not None and job.session is not None else change_event(change)
        self._record(change, event)
        if job is None or event is None:
            return
        self._broadcast(event)
        if job.state is not JobState.RUNNING:
            return
        progress = self.progress_of(job)
        if progress is not None:
            self._broadcast(progress_event(job, progress, change.revision))
        if self._is_watched(job):
            self._on_watch(job.id)

    def _record(self, change: Change[Job], event: Event | None) -> None:
        self._follow_epoch()
        if self.holes.shows(change):
            self._log.doubt(change.revision)
            for session in self:  # it has missed something too; it comes back, and is told the present
                session.outbox.close(CLOSE_OVERLOADED)
        self._log.add(change.revision, at=change.record.updated_at if change.record else 0.0, event=event)

    def _follow_epoch(self) -> None:
        if self._epoch != self._jobs.epoch:
            self._epoch = self._jobs.epoch
            self._log.reset()

    def _is_watched(self, job: Job) -> bool:
        return job.id in self._viewers or any(True for _ in self._preview_audience(job))

    def _preview_audience(self, job: Job) -> Iterator[Session]:
        """The owner's sessions that want this job's previews, and others that may and asked for this very job."""
        for session in tuple(self._audiences.get(job.owner, ())):
            if session.wants_previews(job.id):
                yield session
        for session in self._administrators:
            if session.owner != job.owner and session.watches(job.id):
                yield session

    def _broadcast(self, event: Event) -> None:
        audience = self._audiences.get(event.owner)
        if audience is not None:
            audience.deliver(event)
