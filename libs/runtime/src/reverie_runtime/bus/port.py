"""The bus port: subjects and compare-and-set buckets, and what every adapter promises.

Semantics that callers rely on, and that `reverie_testing.bus_conformance` checks on each adapter:

* `publish` is at most once; messages of one publisher on one subject arrive in order.
* A bucket write is durable when its call returns.  `create` and `update` are compare-and-set: exactly one of two
  writers of the same revision wins, the other gets `RevisionConflict`.
* A write whose reply was lost raises `WriteUncertain`: it may or may not have been applied, now or later.  Read
  again before repeating it.
* Revisions of a bucket increase strictly over all its keys, also across a server restart.
* A watch delivers one complete snapshot (never short), then every later revision exactly once and in order, also
  across a server kill and restart.  If it cannot continue without a gap (the bucket was made anew, or history
  was discarded), it says so with another `SnapshotBegin`.  `SnapshotEnd` comes after the last entry that it covers.
* While the server is away, calls raise `BusUnavailable` within their timeout; nothing hangs, nothing crashes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeGuard

import msgspec


class BusError(Exception):
    """Base of everything the bus raises."""


class BusUnavailable(BusError):
    """The server cannot be reached, or did not answer in time.  Nothing was written."""


class WriteUncertain(BusError):
    """The reply to a write was lost: it may be applied, now or later."""


class RevisionConflict(BusError):
    """Another writer was first: the key's revision is not the expected one."""


class NoResponders(BusError):
    """Nobody listens on the requested subject: known at once, without waiting."""


class RequestTimeout(BusError):
    """Somebody listens but did not answer in time."""


class MessageTooLarge(BusError):
    """No server would take a message of this size; nothing was written, and never will be."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One core message; `reply` is where an answer goes, empty if none is wanted."""

    subject: str
    data: bytes
    reply: str = ""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One revision of one key.  `value` is None for a deletion (or an expiry)."""

    key: str
    value: bytes | None
    revision: int


class SnapshotBegin(msgspec.Struct, frozen=True):
    """Forget what you mirrored: a complete snapshot follows.

    `epoch` names this bucket among all that ever had its name: another epoch, and earlier revisions mean nothing.
    """

    epoch: str = ""


class SnapshotEnd(msgspec.Struct, frozen=True):
    """The snapshot is complete; `revision` is the bucket's last revision it covers, what follows is live.

    Every key is in it.  `doubtful` other than 0: of a history up to that revision some may be missing, which the
    server lists and did not deliver, however often it was asked.
    """

    revision: int
    doubtful: int = 0


WatchEvent = SnapshotBegin | Entry | SnapshotEnd
AwaitingHandler = Callable[[Message], Awaitable[None]]
#: A coroutine function has a queue of its own; a plain function is called at once, before anything else is read.
Handler = AwaitingHandler | Callable[[Message], None]


def awaits(handler: Handler) -> TypeGuard[AwaitingHandler]:
    """Whether a handler is a coroutine function, or an object whose call is one."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


class BucketConfig(msgspec.Struct, frozen=True):
    """A KV bucket on file storage.  `ttl_s` 0 keeps entries; `republish` is a subject prefix for commits."""

    name: str
    history: int = 1
    ttl_s: float = 0.0
    republish: str = ""


_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def require_key(key: str) -> None:
    """BusError if this cannot be a key: a wildcard in one would read or purge other keys."""
    if not _KEY.fullmatch(key):
        raise BusError(f"not a key: {key[:80]!r}")


class Subscription(Protocol):
    """A running subscription; it survives reconnects."""

    async def unsubscribe(self) -> None:
        """Stop; idempotent."""


class Bucket(Protocol):
    """Keys with revisions.  Keys are `[A-Za-z0-9_-]+` parts joined by dots."""

    @property
    def name(self) -> str:
        """Name of the bucket."""

    async def get(self, key: str) -> Entry | None:
        """Latest revision from the leader (never stale); None if there is none or it was deleted."""

    async def history(self, key: str) -> list[Entry]:
        """The kept revisions of a key, oldest first."""

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist (or was deleted); its revision.  RevisionConflict otherwise."""

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write a key whose latest revision must be `revision`; the new one."""

    async def put(self, key: str, value: bytes) -> int:
        """Write unconditionally; the new revision."""

    async def delete(self, key: str) -> None:
        """Mark a key deleted (watchers see an Entry with value None)."""

    async def purge(self, key: str, *, revision: int | None = None) -> None:
        """Delete a key together with its history; RevisionConflict if its latest is not `revision` (None: any)."""

    def watch(self, *, history: bool = False) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Snapshot, then every revision.  Keep one per process and bucket, not one per client.

        The snapshot is the latest revision of each key, or with `history` every kept revision, in order.
        """


class StreamConfig(msgspec.Struct, frozen=True):
    """A stream on file storage: what is published on `subjects` stays for `max_age_s` seconds."""

    name: str
    subjects: tuple[str, ...]
    max_age_s: float


class Stream(Protocol):
    """A log that other services read; this side only appends."""

    @property
    def name(self) -> str:
        """Name of the stream."""

    async def append(self, subject: str, data: bytes) -> int:
        """Publish on one of its subjects; the sequence, when it is durable.

        BusUnavailable if nothing was written, WriteUncertain if that is not known: again may be twice.
        """


class Bus(Protocol):
    """A connection to the bus; `connect_nats` and `MemoryBus` make one."""

    @property
    def connected(self) -> bool:
        """Whether the server can be reached right now."""

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(True)` after each (re)connect and `listener(False)` after each loss."""

    async def publish(self, subject: str, data: bytes) -> None:
        """Send to whoever listens now.  While disconnected the message is dropped, never queued."""

    async def request(self, subject: str, data: bytes, *, timeout: float) -> Message:
        """One answer within `timeout` seconds; NoResponders, RequestTimeout or BusUnavailable otherwise."""

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message, one after the other; an exception in it is logged, not fatal."""

    async def bucket(self, config: BucketConfig) -> Bucket:
        """The bucket, made if absent; BusError naming the difference if it exists with other properties.

        It is checked and made again after every reconnect, so a wiped server heals.
        """

    async def stream(self, config: StreamConfig) -> Stream:
        """The stream, made if absent and again after every reconnect; BusError if its subjects differ."""

    async def check(self, *, timeout: float) -> None:
        """Prove a round trip through JetStream; BusUnavailable with one sentence otherwise."""

    async def close(self) -> None:
        """Flush, close; idempotent."""
