"""In-memory mirrors of the buckets `jobs` and `workers`: one watcher per process, however many clients.

A mirror is a pure fold over watch events (`apply`) with a small actor around it (`follow`).  Listeners hear every
committed revision once and in order; after a snapshot that replaces an earlier one they hear only what differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import msgspec
import structlog

from reverie_jobs.waiting import WaitingRoom
from reverie_protocol.jobs import Job, JobState, Worker
from reverie_protocol.subjects import WORKER_TTL_S, WORKERS_BUCKET
from reverie_runtime.bus.port import (
    Bucket,
    BucketConfig,
    Entry,
    SnapshotBegin,
    SnapshotEnd,
    WatchEvent,
)

WORKERS = BucketConfig(name=WORKERS_BUCKET, history=1, ttl_s=WORKER_TTL_S)

#: Pause before a watch that failed by a fault of ours is begun anew, in seconds.
REWATCH_S = 1.0

log = structlog.get_logger(__name__)
Record = TypeVar("Record", bound=msgspec.Struct)


class Change(msgspec.Struct, Generic[Record], frozen=True, gc=False):
    """One committed revision: `record` is None for a deletion, `previous` what the mirror held before.

    `live` is false while a snapshot is being read: the past, not news.
    """

    key: str
    record: Record | None
    previous: Record | None
    revision: int
    live: bool


Listener = Callable[[Change[Record]], None]


class Mirror(Generic[Record]):
    """Latest record per key.  `ready` is set while the mirror holds a complete snapshot.

    `revision` is the bucket's latest that was seen, `epoch` names the bucket that it belongs to.  `unreadable` are
    keys of records that this process cannot read: they are there, only not for it.

    `whole_since` is for those who keep what they were told: listeners heard in order of every revision after it,
    but for those that the bucket had discarded.  It moves at a record that cannot be read, and where the watch
    cannot vouch for what it told or a live revision does not follow the last one: `gaps` counts the latter two,
    which are never to be expected.  Both are kept where the mirror `hears_all`, followed with `history`.
    """

    def __init__(self, record_type: type[Record]) -> None:
        self._decoder = msgspec.json.Decoder(record_type)
        self._records: dict[str, tuple[Record, int]] = {}
        self._unseen: set[str] = set()
        self._in_snapshot = False
        self._listeners: list[Listener[Record]] = []
        self.ready = asyncio.Event()
        self.unreadable: set[str] = set()
        self.revision = 0
        self.epoch = ""
        self.hears_all = False
        self.whole_since = 0
        self.gaps = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return (record for record, _ in self._records.values())

    def get(self, key: str) -> Record | None:
        """The mirrored record, None if there is none."""
        held = self._records.get(key)
        return held[0] if held else None

    def revision_of(self, key: str) -> int:
        """Bucket revision of the mirrored record, 0 if there is none."""
        held = self._records.get(key)
        return held[1] if held else 0

    def listen(self, listener: Listener[Record]) -> Callable[[], None]:
        """Call `listener` for each change; the returned function stops that (idempotent)."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def apply(self, event: WatchEvent) -> None:
        """Fold one watch event in; pure of I/O."""
        match event:
            case SnapshotBegin(epoch=epoch):
                if epoch != self.epoch:  # another bucket of this name: its revisions begin anew
                    self._records = {key: (record, 0) for key, (record, _) in self._records.items()}
                    self.revision = self.whole_since = 0
                    self.epoch = epoch
                self._in_snapshot = True
                self._unseen = set(self._records)
                self.unreadable.clear()
                self.ready.clear()
            case SnapshotEnd(revision=revision, doubtful=doubtful):
                self.whole_since = max(self.whole_since, doubtful)
                self.gaps += doubtful > 0
                for key in self._unseen:
                    self._set(key, None, revision)
                self._unseen = set()
                self._in_snapshot = False
                self.revision = max(self.revision, revision)
                self.ready.set()
            case Entry(key=key, value=value, revision=revision):
                self._unseen.discard(key)
                self.unreadable.discard(key)
                if self.hears_all and not self._in_snapshot and revision != self.revision + 1:
                    self._note_gap(key, revision)
                self._set(key, None if value is None else self._decode(key, value, revision), revision)
                self.revision = max(self.revision, revision)

    def _decode(self, key: str, value: bytes, revision: int) -> Record | None:
        try:
            return self._decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # A record of a newer version, or somebody's by-hand write: never a reason to stop the mirror, and
            # not to be acted on either.
            log.error("unreadable record left out", key=key, reason=type(error).__name__)
            self.unreadable.add(key)
            self.whole_since = max(self.whole_since, revision)
            return None

    def _note_gap(self, key: str, revision: int) -> None:
        # A watch promises that this cannot be.  Should it be all the same, nobody is told that nothing is missing.
        log.error("a revision does not follow the last one", key=key, revision=revision, last=self.revision)
        self.gaps += 1
        self.whole_since = max(self.whole_since, self.revision, revision - 1)

    def _set(self, key: str, record: Record | None, revision: int) -> None:
        previous, previous_revision = self._records.get(key, (None, 0))
        if revision <= previous_revision and record is not None:
            return
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = (record, revision)
        if record is None and previous is None:
            return
        change = Change(key, record, previous, revision, live=not self._in_snapshot)
        for listener in tuple(self._listeners):
            try:
                listener(change)
            except Exception:
                log.exception("mirror listener failed", key=key)


@asynccontextmanager
async def follow(
    mirror: Mirror[Record], bucket: Bucket, *, history: bool = False
) -> AsyncIterator[Mirror[Record]]:
    """Keep a mirror up to date while the context is open; yields when its first snapshot is complete.

    With `history` its listeners are told every kept revision first, not only the latest of each key.
    """

    async def run() -> None:
        begun = False
        while True:
            try:
                mirror.hears_all = history
                async with bucket.watch(history=history) as events:
                    async for event in events:
                        mirror.apply(event)
                        begun = begun or mirror.ready.is_set()
            except Exception:
                if not begun:
                    raise  # the service cannot start
                # A mirror that stands still would answer wrongly for ever: say so at /ready, and begin anew.
                log.exception("the watch of a mirror failed; it begins anew", bucket=bucket.name)
                mirror.ready.clear()
                await asyncio.sleep(REWATCH_S)

    task = asyncio.create_task(run(), name=f"mirror-{bucket.name}")
    first = asyncio.create_task(mirror.ready.wait())
    try:
        await asyncio.wait({task, first}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield mirror
    finally:
        for pending in (first, task):
            pending.cancel()
        await asyncio.gather(first, task, return_exceptions=True)


class JobMirror(Mirror[Job]):
    """All job records; the waiting ones in the order of the claim rule, the running ones at hand.

    `limited` are the unfinished jobs with a time limit.
    """

    def __init__(self) -> None:
        super().__init__(Job)
        self.waiting = WaitingRoom()
        self.running: dict[str, Job] = {}
        self.limited: dict[str, Job] = {}
        self.listen(self._index)

    @property
    def queued(self) -> Mapping[str, Job]:
        """The waiting jobs by id."""
        return self.waiting.jobs

    def _index(self, change: Change[Job]) -> None:
        job = change.record
        self.waiting.update(change.key, job)
        self.running.pop(change.key, None)
        self.limited.pop(change.key, None)
        if job is None or job.state.terminal:
            return
        if job.state is JobState.RUNNING:
            self.running[change.key] = job
        if job.start_by is not None or job.finish_by is not None:
            self.limited[change.key] = job


class WorkerMirror(Mirror[Worker]):
    """All workers whose heartbeat record has not expired (30 s): a worker being restarted still counts."""

    def __init__(self) -> None:
        super().__init__(Worker)
