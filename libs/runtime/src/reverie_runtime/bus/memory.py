"""The bus in memory: the same promises as over NATS, for tests and simulations that own their clock.

A `MemoryServer` is what the processes share; it can be killed, restarted and wiped.  A `MemoryBus` is one
process's connection to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import structlog

from reverie_runtime.bus.memory_store import MemoryStore
from reverie_runtime.bus.port import (
    BucketConfig,
    BusError,
    BusUnavailable,
    Entry,
    Handler,
    Message,
    NoResponders,
    RequestTimeout,
    RevisionConflict,
    SnapshotBegin,
    SnapshotEnd,
    WatchEvent,
    WriteUncertain,
    require_key,
)
from reverie_runtime.clock import Clock, SystemClock

#: Messages waiting for a slow handler; beyond it the newest are dropped.
INBOX_MESSAGES: Final = 16_384

log = structlog.get_logger(__name__)


class MemoryServer:
    """Subjects and buckets that any number of `MemoryBus` share."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.up = True
        self.stores: dict[str, MemoryStore] = {}
        self.buses: list[MemoryBus] = []
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
        for bus in list(self.buses):
            bus.tell(connected=False)

    def restart(self) -> None:
        """Come back with what was stored."""
        self.up = True
        for bus in list(self.buses):
            bus.heal()
            bus.tell(connected=True)
        self.wake()

    def wipe(self) -> None:
        """Forget every bucket; possible while killed."""
        if self.up:
            raise BusError("kill the server before wiping it")
        self.stores.clear()

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
        self._task = asyncio.create_task(self._dispatch(), name=f"subscription {subject}")
        server.subscriptions.append(self)

    def receive(self, message: Message) -> None:
        """Queue a message; dropped if the handler is far behind."""
        with contextlib.suppress(asyncio.QueueFull):
            self._inbox.put_nowait(message)

    async def unsubscribe(self) -> None:
        """Stop; idempotent."""
        if self not in self._server.subscriptions:
            return
        self._server.subscriptions.remove(self)
        if asyncio.current_task() is not self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _dispatch(self) -> None:
        while self in self._server.subscriptions:
            message = await self._inbox.get()
            try:
                await self._handler(message)
            except Exception:
                log.exception("a handler failed", subject=message.subject)


class MemoryWatch(AsyncIterator[WatchEvent]):
    """Events of one bucket.  A cancelled `__anext__` loses nothing."""

    def __init__(self, server: MemoryServer, config: BucketConfig) -> None:
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
        self._events += [SnapshotBegin(), *store.live(), SnapshotEnd(store.revision)]
        self._created = store.created
        self._revision = store.revision
        self.interrupted = False


class MemoryBucket:
    """See `reverie_runtime.bus.port.Bucket`."""

    def __init__(self, server: MemoryServer, config: BucketConfig) -> None:
        self.config = config
        self._server = server

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self.config.name

    async def get(self, key: str) -> Entry | None:
        """Latest revision; None if there is none or it was deleted."""
        entry = (await self._store(key)).latest(key)
        return entry if entry is not None and entry.value is not None else None

    async def history(self, key: str) -> list[Entry]:
        """The kept revisions of a key, oldest first."""
        return (await self._store(key)).history(key)

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist, or was deleted; its revision."""
        latest = (await self._store(key)).latest(key)
        if latest is not None and latest.value is not None:
            raise RevisionConflict(f"{self.name}/{key} exists")
        return await self.update(key, value, latest.revision if latest else 0)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write a key whose latest revision must be `revision`; the new one."""
        await self._store(key)
        return self._server.write(
            self.config, lambda store, now: store.write(key, value, now=now, expected=revision)
        )

    async def put(self, key: str, value: bytes) -> int:
        """Write unconditionally; the new revision."""
        await self._store(key)
        return self._server.write(self.config, lambda store, now: store.write(key, value, now=now))

    async def delete(self, key: str) -> None:
        """Mark a key deleted."""
        await self._store(key)
        self._server.write(self.config, lambda store, now: store.write(key, None, now=now))

    async def purge(self, key: str) -> None:
        """Delete a key together with its history."""
        await self._store(key)
        self._server.write(self.config, lambda store, now: store.purge(key, now=now))

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Snapshot, then every revision."""
        watch = MemoryWatch(self._server, self.config)
        self._server.watches.append(watch)
        try:
            yield watch
        finally:
            self._server.watches.remove(watch)

    async def _store(self, key: str) -> MemoryStore:
        """The revisions, after others had a turn: as over a network, no call is done at once."""
        require_key(key)
        await asyncio.sleep(0)
        return self._server.store(self.config)


class MemoryBus:
    """See `reverie_runtime.bus.port.Bus`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._listeners: list[Callable[[bool], None]] = []
        self._subscriptions: list[MemorySubscription] = []
        self._buckets: list[BucketConfig] = []
        self._closed = False
        server.buses.append(self)

    @property
    def connected(self) -> bool:
        """Whether the server can be reached right now."""
        return self._server.up and not self._closed

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` after each (re)connect and each loss."""
        self._listeners.append(listener)

    def tell(self, *, connected: bool) -> None:
        """Call the listeners."""
        for listener in list(self._listeners):
            listener(connected)

    def heal(self) -> None:
        """Make the buckets again if the server lost them."""
        for config in self._buckets:
            self._server.store(config)

    async def publish(self, subject: str, data: bytes) -> None:
        """Send to whoever listens now; dropped while the server is away."""
        if self.connected:
            self._server.deliver(Message(subject, data))
        await asyncio.sleep(0)

    async def request(self, subject: str, data: bytes, *, timeout: float) -> Message:
        """One answer within `timeout` seconds."""
        self._require_connected()
        reply = f"_INBOX.{next(self._server.serial)}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._server.answers[reply] = answer
        patience = asyncio.create_task(self._server.clock.sleep(timeout))
        waited: tuple[asyncio.Future[Any], ...] = (answer, patience)
        try:
            if not self._server.deliver(Message(subject, data, reply)):
                raise NoResponders(f"nobody listens on {subject}")
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise RequestTimeout(f"no answer on {subject} within {timeout:g} s")
            return answer.result()
        finally:
            patience.cancel()
            del self._server.answers[reply]

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> MemorySubscription:
        """Call `handler` for each message."""
        subscription = MemorySubscription(self._server, subject, queue, handler)
        self._subscriptions.append(subscription)
        return subscription

    async def bucket(self, config: BucketConfig) -> MemoryBucket:
        """The bucket, made if absent and again after every restart."""
        self._require_connected()
        found = self._server.store(config).config
        differences = [
            f"{name} is {getattr(found, name)!r} instead of {getattr(config, name)!r}"
            for name in config.__struct_fields__
            if getattr(found, name) != getattr(config, name)
        ]
        if differences:
            raise BusError(f"bucket {config.name!r} exists with other properties: {', '.join(differences)}")
        self._buckets.append(config)
        return MemoryBucket(self._server, config)

    async def check(self, *, timeout: float) -> None:
        """Prove that the server is there."""
        self._require_connected()

    async def close(self) -> None:
        """Unsubscribe; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._server.buses.remove(self)
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    def _require_connected(self) -> None:
        self._server.require_up()
        if self._closed:
            raise BusUnavailable("the bus is closed")


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one that a subscription's pattern (`*` a part, `>` the rest) names."""
    wanted, parts = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(parts) > index
        if index >= len(parts) or part not in ("*", parts[index]):
            return False
    return len(wanted) == len(parts)
