"""A server in memory: what the buses of several "processes" share.  It can be killed, restarted and wiped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from reverie_runtime.bus.memory_store import MemoryStore
from reverie_runtime.bus.port import (
    AwaitingHandler,
    BucketConfig,
    BusError,
    BusUnavailable,
    Entry,
    Handler,
    Message,
    SnapshotBegin,
    SnapshotEnd,
    StreamConfig,
    WatchEvent,
    WriteUncertain,
    awaits,
)
from reverie_runtime.clock import Clock, SystemClock

#: Messages or events waiting for a slow reader; beyond it messages are dropped, events stay in the bucket.
INBOX_MESSAGES: Final = 16_384

log = structlog.get_logger(__name__)


class MemoryServer:
    """Subjects and buckets that any number of `MemoryBus` share."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.up = True
        self.stores: dict[str, MemoryStore] = {}
        self.streams: dict[str, tuple[StreamConfig, list[Message]]] = {}
        self.members: list[Callable[[bool], None]] = []
        self.subscriptions: list[MemorySubscription] = []
        self.watches: list[MemoryWatch] = []
        self.answers: dict[str, asyncio.Future[Message]] = {}
        self.serial = itertools.count(1)
        self._turns = itertools.count()
        self._lost_replies: deque[bool] = deque()
        self._expiring: asyncio.Task[None] | None = None

    def kill(self) -> None:
        """Go away as if killed: calls fail, what is stored stays."""
        self.up = False
        for answer in self.answers.values():
            if not answer.done():
                answer.set_exception(BusUnavailable("the server went away"))
        for watch in self.watches:
            watch.interrupted = True
        for member in list(self.members):
            member(False)

    def restart(self) -> None:
        """Come back with what was stored."""
        self.up = True
        for member in list(self.members):
            member(True)
        self.wake()

    def wipe(self) -> None:
        """Forget every bucket and stream; possible while killed."""
        if self.up:
            raise BusError("kill the server before wiping it")
        self.stores.clear()
        self.streams.clear()

    def lose_reply(self, *, applied: bool) -> None:
        """Make one coming write raise WriteUncertain, applied or not."""
        self._lost_replies.append(applied)

    def require_up(self) -> None:
        """BusUnavailable while killed."""
        if not self.up:
            raise BusUnavailable("the server is not connected")

    def store(self, config: BucketConfig) -> MemoryStore:
        """A bucket's revisions, without those that expired."""
        self.require_up()
        if config.name not in self.stores:
            self.stores[config.name] = MemoryStore(config, next(self.serial))
        self.expire()
        return self.stores[config.name]

    def keep(self, config: StreamConfig) -> StreamConfig:
        """Make a stream if it is absent; as it is."""
        self.require_up()
        return self.streams.setdefault(config.name, (config, []))[0]

    def append(self, config: StreamConfig, message: Message) -> int:
        """Publish a message that a stream keeps; how many it has kept."""
        self.keep(config)
        if not any(matches(subject, message.subject) for subject in config.subjects):
            raise BusUnavailable(f"stream {config.name} does not keep {message.subject}: nothing was written")
        self.deliver(message)
        return len(self.streams[config.name][1])

    def write(self, config: BucketConfig, change: Callable[[MemoryStore, float], Entry]) -> int:
        """Apply a change, tell everybody, and answer unless the answer gets lost."""
        store = self.store(config)
        applied = self._lost_replies.popleft() if self._lost_replies else None
        if applied is False:
            raise WriteUncertain("the reply was lost")
        entry = change(store, self.clock.monotonic())
        self.committed(store, entry)
        if store.config.ttl_s and (self._expiring is None or self._expiring.done()):
            self._expiring = asyncio.create_task(self._expire_in_time(), name="expiry")
        if applied:
            raise WriteUncertain("the reply was lost")
        return entry.revision

    def committed(self, store: MemoryStore, entry: Entry) -> None:
        """Republish a revision and wake the watches."""
        if store.config.republish:
            self.deliver(Message(f"{store.config.republish}.{entry.key}", entry.value or b""))
        self.wake()

    def deliver(self, message: Message) -> bool:
        """Hand a message to all that listen, to one of each queue group; whether there was one."""
        answer = self.answers.get(message.subject)
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
            return True
        for config, kept in self.streams.values():
            if any(matches(subject, message.subject) for subject in config.subjects):
                kept.append(message)
        groups: dict[str, list[MemorySubscription]] = {}
        for subscription in self.subscriptions:
            if matches(subscription.subject, message.subject):
                groups.setdefault(subscription.group or f" {id(subscription)}", []).append(subscription)
        turn = next(self._turns)
        for members in groups.values():
            members[turn % len(members)].receive(message)
        return bool(groups)

    def expire(self) -> None:
        """Turn what is too old into deletions."""
        for store in self.stores.values():
            for mark in store.expire(self.clock.monotonic()):
                self.committed(store, mark)

    def wake(self) -> None:
        """Let the watches look."""
        for watch in self.watches:
            watch.look()

    async def _expire_in_time(self) -> None:
        while True:
            times = [due for store in self.stores.values() if (due := store.next_expiry()) is not None]
            if not times:
                return
            await self.clock.sleep(max(0.0, min(times) - self.clock.monotonic()))
            if self.up:
                self.expire()


class MemorySubscription:
    """Feeds one handler in order."""

    def __init__(self, server: MemoryServer, subject: str, group: str, handler: Handler) -> None:
        self.subject = subject
        self.group = group
        self._server = server
        self._handler = handler
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(INBOX_MESSAGES)
        self._task: asyncio.Task[None] | None = None
        if awaits(handler):
            self._task = asyncio.create_task(self._dispatch(handler), name=f"subscription {subject}")
        server.subscriptions.append(self)

    def receive(self, message: Message) -> None:
        """Queue a message, dropped if the handler is far behind; a plain function is called at once."""
        if self._task is None:
            try:
                self._handler(message)
            except Exception:
                log.exception("a handler failed", subject=message.subject)
            return
        with contextlib.suppress(asyncio.QueueFull):
            self._inbox.put_nowait(message)

    async def unsubscribe(self) -> None:
        """Stop; idempotent."""
        if self not in self._server.subscriptions:
            return
        self._server.subscriptions.remove(self)
        if self._task is not None and asyncio.current_task() is not self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _dispatch(self, handler: AwaitingHandler) -> None:
        while self in self._server.subscriptions:
            message = await self._inbox.get()
            try:
                await handler(message)
            except Exception:
                log.exception("a handler failed", subject=message.subject)


class MemoryWatch(AsyncIterator[WatchEvent]):
    """Events of one bucket.  A cancelled `__anext__` loses nothing."""

    def __init__(self, server: MemoryServer, config: BucketConfig, *, whole: bool) -> None:
        self._whole = whole
        self.interrupted = False
        self._changed = asyncio.Event()
        self._server = server
        self._config = config
        self._created = 0
        self._revision = 0
        self._events: deque[WatchEvent] = deque()

    async def __anext__(self) -> WatchEvent:
        self.look()
        while not self._events:
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()

    def look(self) -> None:
        """Take what is new, unless the reader is far behind: then it stays in the bucket, while that keeps it."""
        if self._server.up and len(self._events) < INBOX_MESSAGES:
            self._take(self._server.store(self._config))
        if self._events:
            self._changed.set()

    def _take(self, store: MemoryStore) -> None:
        if store.created != self._created:
            return self._snapshot(store)
        for revision in range(self._revision + 1, store.revision + 1):
            entry = store.entry(revision)
            if entry is not None:
                self._events.append(entry)
            elif self._config.history > 1 or self.interrupted:
                return self._snapshot(store)
        self._revision = store.revision
        self.interrupted = False
        return None

    def _snapshot(self, store: MemoryStore) -> None:
        kept = store.kept() if self._whole else store.live()
        self._events += [SnapshotBegin(str(store.created)), *kept, SnapshotEnd(store.revision)]
        self._created = store.created
        self._revision = store.revision
        self.interrupted = False


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one that a subscription's pattern (`*` a part, `>` the rest) names."""
    wanted, parts = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(parts) > index
        if index >= len(parts) or part not in ("*", parts[index]):
            return False
    return len(wanted) == len(parts)
