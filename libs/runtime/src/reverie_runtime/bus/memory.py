"""The bus in memory: the same promises as over NATS, for tests and simulations that own their clock.

A `MemoryServer` is what the processes share; a `MemoryBus` is one process's connection to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from reverie_runtime.bus.memory_server import MemoryServer, MemorySubscription, MemoryWatch
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
    StreamConfig,
    WatchEvent,
    require_key,
)

__all__ = ["MemoryBus", "MemoryServer"]


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

    async def purge(self, key: str, *, revision: int | None = None) -> None:
        """Delete a key together with its history."""
        await self._store(key)
        self._server.write(self.config, lambda store, now: store.purge(key, now=now, expected=revision))

    @contextlib.asynccontextmanager
    async def watch(self, *, history: bool = False) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Snapshot, then every revision."""
        watch = MemoryWatch(self._server, self.config, whole=history)
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


class MemoryStream:
    """See `reverie_runtime.bus.port.Stream`."""

    def __init__(self, server: MemoryServer, config: StreamConfig) -> None:
        self._server = server
        self._config = config

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self._config.name

    async def append(self, subject: str, data: bytes) -> int:
        """The sequence."""
        await asyncio.sleep(0)
        return self._server.append(self._config, Message(subject, data))


class MemoryBus:
    """See `reverie_runtime.bus.port.Bus`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._listeners: list[Callable[[bool], None]] = []
        self._subscriptions: list[MemorySubscription] = []
        self._buckets: list[BucketConfig] = []
        self._streams: list[StreamConfig] = []
        self._closed = False
        server.members.append(self._changed)

    @property
    def connected(self) -> bool:
        """Whether the server can be reached right now."""
        return self._server.up and not self._closed

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` after each (re)connect and each loss."""
        self._listeners.append(listener)

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

    async def stream(self, config: StreamConfig) -> MemoryStream:
        """The stream, made if absent and again after every restart."""
        self._require_connected()
        if (found := self._server.keep(config)).subjects != config.subjects:
            difference = f"subjects is {found.subjects!r} instead of {config.subjects!r}"
            raise BusError(f"stream {config.name} exists with other properties: {difference}")
        self._streams.append(config)
        return MemoryStream(self._server, config)

    async def check(self, *, timeout: float) -> None:
        """Prove that the server is there."""
        self._require_connected()

    async def close(self) -> None:
        """Unsubscribe; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._server.members.remove(self._changed)
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    def _require_connected(self) -> None:
        self._server.require_up()
        if self._closed:
            raise BusUnavailable("the bus is closed")

    def _changed(self, connected: bool) -> None:
        if connected:
            for config in self._buckets:
                self._server.store(config)  # a wiped server heals
            for stream in self._streams:
                self._server.keep(stream)
        for listener in list(self._listeners):
            listener(connected)
