"""A watch over NATS: one ordered push consumer at a time, built anew whenever it may have missed something."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import structlog

from reverie_runtime.bus import nats_jetstream as jetstream
from reverie_runtime.bus.nats_link import Link
from reverie_runtime.bus.nats_replay import Interrupted, Replay
from reverie_runtime.bus.port import BusError, SnapshotEnd, WatchEvent

HEARTBEAT_S: Final = 1.0
SILENCE_S: Final = 2.5
REBUILD_WAIT_S: Final = 0.05
LONGEST_REBUILD_WAIT_S: Final = 2.0
#: The server deletes a consumer that nobody listens to after this time; a watch that ends deletes its own at once.
ABANDONED_S: Final = 15.0
#: Messages on their way to a slow reader.  Flow control stops the server at 32 MiB that were not read, which is
#: less than this many; beyond it they would be dropped and fetched again, for a slow reader without end.
INBOX_MESSAGES: Final = 1 << 18
#: Events in a row after which everybody else gets a turn of the event loop: a full inbox never waits by itself.
TURN_EVENTS: Final = 32

log = structlog.get_logger(__name__)
NANOSECONDS: Final = 1_000_000_000


class NatsWatch(AsyncIterator[WatchEvent]):
    """Events of one bucket.  A cancelled `__anext__` loses nothing."""

    def __init__(
        self,
        bucket: str,
        *,
        history: int,
        whole: bool,
        wait_link: Callable[[], Awaitable[Link]],
        ensure: Callable[[Link], Awaitable[None]],
    ) -> None:
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._wait_link = wait_link
        self._ensure = ensure
        self._whole = whole
        self._replay = Replay(history=history, whole=whole)
        self._events: deque[WatchEvent] = deque()
        self._taken = 0
        self._inbox: asyncio.Queue[Any] = asyncio.Queue(INBOX_MESSAGES)
        self._link: Link | None = None
        self._consumer = ""
        self._subscription: Any = None
        self._creation: asyncio.Task[jetstream.ConsumerInfo] | None = None
        self._following = False

    async def __anext__(self) -> WatchEvent:
        self._taken += 1
        if self._taken % TURN_EVENTS == 0:
            await asyncio.sleep(0)
        while not self._events:
            try:
                if self._following:
                    await self._receive()
                else:
                    await self._follow()
            except (Interrupted, BusError, TimeoutError) as reason:
                log.info("watch is built anew", stream=self._stream, reason=str(reason) or "silence")
                await self._abandon()
                # A server that refuses at once is not hammered, one that tells half of a history even less.
                await asyncio.sleep(min(REBUILD_WAIT_S * 4**self._replay.shortfalls, LONGEST_REBUILD_WAIT_S))
        return self._events.popleft()

    def interrupt(self) -> None:
        """The connection is gone: build anew as soon as there is one, not after the silence."""
        with contextlib.suppress(asyncio.QueueFull):  # a full inbox has a gap anyway, or is being read
            self._inbox.put_nowait(None)

    async def close(self) -> None:
        """Delete the consumer, also if the caller is cancelled meanwhile."""
        await asyncio.shield(asyncio.create_task(self._abandon(confirm=True)))

    async def _follow(self) -> None:
        if self._subscription is not None:
            await self._abandon()  # of a cancelled attempt
        link = self._link = await self._wait_link()
        info = await self._stream_info(link)
        first = self._replay.start(info.created, info.state.last_seq)
        self._inbox = asyncio.Queue(INBOX_MESSAGES)
        subject = link.new_inbox()
        self._subscription = await link.subscribe(subject, "", self._inbox)
        self._consumer = subject.rpartition(".")[2]
        config = self._consumer_config(subject, first)
        # A task of its own: cancelled half-way, the consumer could come to be after its deletion.
        self._creation = asyncio.create_task(jetstream.consumer_create(link, self._stream, config))
        consumer = await asyncio.shield(self._creation)
        if not first:
            self._events.clear()
        self._events += self._replay.started(consumer.num_pending)
        self._following = True
        if not self._replay.complete:
            await self._list()

    async def _stream_info(self, link: Link) -> jetstream.StreamInfo:
        try:
            return await jetstream.stream_info(link, self._stream)
        except jetstream.JetStreamError as error:
            if error.err_code == jetstream.STREAM_NOT_FOUND:  # somebody deleted it while we were connected
                await self._ensure(link)
            raise

    def _consumer_config(self, subject: str, first: int) -> dict[str, Any]:
        start: dict[str, Any] = {"deliver_policy": "all" if self._whole else "last_per_subject"}
        if first:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": first}
        return start | {
            "name": self._consumer,
            "deliver_subject": subject,
            "filter_subject": f"{self._prefix}>",
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * NANOSECONDS),
            "inactive_threshold": int(ABANDONED_S * NANOSECONDS),
            "mem_storage": True,
            "num_replicas": 1,
        }

    async def _list(self) -> None:
        assert self._link is not None
        subjects, last_sequence = await jetstream.stream_subjects(self._link, self._stream)
        counts = {subject.removeprefix(self._prefix): count for subject, count in subjects.items()}
        ends = self._replay.listed(counts, last_sequence)
        for end in ends:
            if isinstance(end, SnapshotEnd) and end.doubtful:
                log.error("the server lists revisions that it does not deliver", stream=self._stream)
        self._events += ends

    async def _receive(self) -> None:
        if self._inbox.empty():
            async with asyncio.timeout(SILENCE_S):
                message = await self._inbox.get()
        else:  # of a long replay most are here already, and a timeout costs more than the message
            message = self._inbox.get_nowait()
        if message is None:
            raise Interrupted("the connection was lost")
        headers = message.headers or {}
        if "Status" in headers:
            await self._control(headers, message.reply)
        else:
            await self._deliver(message, headers)

    async def _deliver(self, message: Any, headers: dict[str, str]) -> None:
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<sequence>.<delivery>.<time>.<pending>[.<token>]
        fields = message.reply.split(".")
        at = 5 if len(fields) == 9 else 7
        deleted = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
        pending = int(fields[at + 3])
        self._events += self._replay.delivered(
            message.subject.removeprefix(self._prefix),
            None if deleted else message.data,
            sequence=int(fields[at]),
            delivery=int(fields[at + 1]),
            pending=pending,
        )
        if self._replay.wants_list:
            await self._list()

    async def _control(self, headers: dict[str, str], reply: str) -> None:
        """Flow control wants an answer once all before it was read; a heartbeat says how far we should be."""
        assert self._link is not None
        if headers["Status"] != "100":
            raise Interrupted(f"the server ended the consumer: {headers.get('Description', '')}")
        answer_to = reply or headers.get("Nats-Consumer-Stalled", "")
        if answer_to:
            await self._link.send(answer_to, b"")
        if "Nats-Last-Consumer" in headers:
            # Also sent while the consumer is far from its end, and waits for our answer to its flow control.
            stalled = "Nats-Consumer-Stalled" in headers
            passed = int(headers["Nats-Last-Stream"])
            self._replay.idle(int(headers["Nats-Last-Consumer"]), passed=passed, stalled=stalled)
            if not (stalled or self._replay.complete):
                await self._list()

    async def _abandon(self, *, confirm: bool = False) -> None:
        """Let the server forget the consumer, if it can be told."""
        if self._creation is not None:
            await asyncio.gather(self._creation, return_exceptions=True)
        link, subscription, consumer = self._link, self._subscription, self._consumer
        self._following = False
        self._link = self._subscription = self._creation = None
        self._consumer = ""
        if link is None or not link.usable:
            return
        with contextlib.suppress(Exception):  # nats-py: the connection may close meanwhile
            if subscription is not None:
                await subscription.unsubscribe()
            if consumer and confirm:
                await jetstream.consumer_delete(link, self._stream, consumer)
            elif consumer:
                await link.send(f"$JS.API.CONSUMER.DELETE.{self._stream}.{consumer}", b"")
