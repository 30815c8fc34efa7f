"""A KV bucket: one JetStream stream in the layout that every NATS KV client reads."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import structlog

from reverie_runtime.bus import nats_jetstream as jetstream
from reverie_runtime.bus.nats_jetstream import JetStreamError, StoredMessage
from reverie_runtime.bus.nats_link import Link, LinkLost
from reverie_runtime.bus.nats_watch import NANOSECONDS, NatsWatch
from reverie_runtime.bus.port import (
    BucketConfig,
    BusError,
    BusUnavailable,
    Entry,
    NoResponders,
    RequestTimeout,
    RevisionConflict,
    WatchEvent,
    WriteUncertain,
    require_key,
)

WRITE_TIMEOUT_S: Final = 5.0
DEDUPLICATION_S: Final = 120.0
#: How long a purged key leaves its mark, so that watchers hear of it; afterwards nothing is left of the key.
PURGE_MARK_S: Final = 3600
SHORTEST_MARK_S: Final = 1.0

log = structlog.get_logger(__name__)


class Connection(Protocol):
    """What a bucket needs of the bus."""

    @property
    def link(self) -> Link:
        """The live connection; BusUnavailable if there is none."""

    async def wait_link(self) -> Link:
        """The live connection, as soon as there is one."""

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call on every change."""

    def remove_listener(self, listener: Callable[[bool], None]) -> None:
        """Stop calling."""


class NatsBucket:
    """See `reverie_runtime.bus.port.Bucket`."""

    def __init__(self, connection: Connection, config: BucketConfig) -> None:
        self.config = config
        self._connection = connection
        self._stream = f"KV_{config.name}"
        self._prefix = f"$KV.{config.name}."

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self.config.name

    async def get(self, key: str) -> Entry | None:
        """Latest revision; None if there is none or it was deleted."""
        entry = await self._latest(key)
        return entry if entry is not None and entry.value is not None else None

    async def history(self, key: str) -> list[Entry]:
        """The kept revisions of a key, oldest first."""
        require_key(key)
        entries: list[Entry] = []
        sequence = 1
        while True:
            query = {"seq": sequence, "next_by_subj": self._prefix + key}
            message = await jetstream.message_get(self._connection.link, self._stream, query)
            if message is None:
                return entries
            entries.append(self._entry(message))
            sequence = message.seq + 1

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist, or was deleted; its revision."""
        try:
            return await self.update(key, value, 0)
        except RevisionConflict:
            mark = await self._latest(key)
            if mark is None or mark.value is not None:
                raise
            return await self.update(key, value, mark.revision)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write a key whose latest revision must be `revision`; the new one."""
        return await self._write(key, value, {"Nats-Expected-Last-Subject-Sequence": str(revision)})

    async def put(self, key: str, value: bytes) -> int:
        """Write unconditionally; the new revision."""
        return await self._write(key, value, None)

    async def delete(self, key: str) -> None:
        """Mark a key deleted."""
        await self._write(key, b"", {"KV-Operation": "DEL"})

    async def purge(self, key: str, *, revision: int | None = None) -> None:
        """Delete a key together with its history."""
        mark = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": f"{PURGE_MARK_S}s"}
        if revision is not None:
            mark["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        await self._write(key, b"", mark)

    @contextlib.asynccontextmanager
    async def watch(self, *, history: bool = False) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Snapshot, then every revision."""
        watch = NatsWatch(
            self.name,
            history=self.config.history,
            whole=history,
            wait_link=self._connection.wait_link,
            ensure=self.ensure,
        )

        def interrupt(connected: bool) -> None:
            if not connected:
                watch.interrupt()

        self._connection.on_connection(interrupt)
        try:
            yield watch
        finally:
            self._connection.remove_listener(interrupt)
            await watch.close()

    async def ensure(self, link: Link) -> None:
        """Make the stream if it is absent; BusError naming the difference if it is another one."""
        wanted = self._stream_config()
        self._compare(wanted, await jetstream.stream_ensure(link, wanted))

    async def _latest(self, key: str) -> Entry | None:
        require_key(key)
        query = {"last_by_subj": self._prefix + key}
        message = await jetstream.message_get(self._connection.link, self._stream, query)
        return None if message is None else self._entry(message)

    def _entry(self, message: StoredMessage) -> Entry:
        deleted = b"\r\nKV-Operation:" in message.hdrs or b"\r\nNats-Marker-Reason:" in message.hdrs
        key = message.subject.removeprefix(self._prefix)
        return Entry(key, None if deleted else message.data, message.seq)

    async def _write(self, key: str, value: bytes, headers: dict[str, str] | None) -> int:
        require_key(key)
        link = self._connection.link
        try:
            answer = await link.request(self._prefix + key, value, timeout=WRITE_TIMEOUT_S, headers=headers)
        except NoResponders:
            with contextlib.suppress(BusError):
                await self.ensure(link)  # somebody deleted the stream: the next try finds it
            raise BusUnavailable(f"bucket {self.name!r} does not answer: nothing was written") from None
        except (LinkLost, RequestTimeout) as error:
            raise WriteUncertain(f"writing {self.name}/{key}: {error}") from None
        try:
            return jetstream.decode(answer.data, jetstream.PublishAck).seq
        except JetStreamError as error:
            if error.err_code in jetstream.WRONG_LAST_SEQUENCE:
                raise RevisionConflict(f"{self.name}/{key} was changed by another writer") from None
            if error.code == 503:
                raise WriteUncertain(f"writing {self.name}/{key}: {error}") from None
            raise

    def _stream_config(self) -> dict[str, Any]:
        config = self.config
        stream: dict[str, Any] = {
            "name": self._stream,
            "subjects": [f"{self._prefix}>"],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_msgs_per_subject": config.history,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            "max_age": int(config.ttl_s * NANOSECONDS),
            "duplicate_window": int(min(config.ttl_s or DEDUPLICATION_S, DEDUPLICATION_S) * NANOSECONDS),
            "num_replicas": 1,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": False,
            "allow_msg_ttl": True,
        }
        if config.ttl_s:
            # Without a mark an expired key would just be gone, and no watcher would hear of it.
            stream["subject_delete_marker_ttl"] = int(max(config.ttl_s, SHORTEST_MARK_S) * NANOSECONDS)
        if config.republish:
            stream["republish"] = {"src": f"{self._prefix}>", "dest": f"{config.republish}.>"}
        return stream

    def _compare(self, wanted: dict[str, Any], found: dict[str, Any]) -> None:
        differences = [
            f"{name} is {found.get(name)!r} instead of {wanted.get(name)!r}"
            for name in PROMISED
            if (found.get(name) or None) != (wanted.get(name) or None)
        ]
        if differences:
            raise BusError(f"bucket {self.name!r} exists with other properties: {', '.join(differences)}")


#: What the port's promises rest on.  Replicas, placement, sizes and the like are the operator's choice.
PROMISED: Final = (
    "subjects",
    "retention",
    "storage",
    "discard",
    "max_msgs_per_subject",
    "max_msgs",
    "max_age",
    "subject_delete_marker_ttl",
    "allow_rollup_hdrs",
    "deny_delete",
    "allow_direct",
    "allow_msg_ttl",
    "republish",
    "mirror",
    "sources",
)
