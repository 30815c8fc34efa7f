"""The bus over NATS: keeps one connection open, and everything that hangs on it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
import structlog

from reverie_runtime.bus import nats_jetstream as jetstream
from reverie_runtime.bus.nats_bucket import NatsBucket
from reverie_runtime.bus.nats_link import Link
from reverie_runtime.bus.nats_stream import NatsStream
from reverie_runtime.bus.port import (
    AwaitingHandler,
    BucketConfig,
    Bus,
    BusError,
    BusUnavailable,
    Handler,
    Message,
    StreamConfig,
    Subscription,
    awaits,
)

CONNECT_TIMEOUT_S: Final = 5.0
SUBSCRIBE_TIMEOUT_S: Final = 2.0
HEAL_RETRY_S: Final = 0.1
#: Between two attempts where somebody took the connection and let it go: a proxy whose server is away, or a server
#: that does not want us.  After `PATIENT_AFTER_S` the latter is more likely.
REFUSED_WAIT_S: Final = (0.03, 0.09)
PATIENT_WAIT_S: Final = (0.2, 0.4)
PATIENT_AFTER_S: Final = 30.0
SMALLEST_PAYLOAD_BYTES: Final = 1_000_000
#: Messages waiting for a slow handler; beyond it the newest are dropped.
INBOX_MESSAGES: Final = 16_384
COMPLAINT_S: Final = 1.0

log = structlog.get_logger(__name__)


async def connect_nats(url: str, *, name: str, connect_timeout: float = CONNECT_TIMEOUT_S) -> Bus:
    """A connected bus; `url` may list servers, separated by commas.

    `name` is shown in the server's monitoring.  BusUnavailable with one sentence if no server answered in
    `connect_timeout` seconds; BusError if JetStream is off.
    """
    bus = NatsBus(url, name=name)
    try:
        async with asyncio.timeout(connect_timeout):
            link = await bus.wait_link()
            await jetstream.account(link, timeout=connect_timeout)
    except TimeoutError:
        await bus.close()
        raise BusUnavailable(f"NATS at {bus.address} cannot be reached: {bus.last_error}") from None
    except BusError as error:
        await bus.close()
        raise type(error)(f"NATS at {bus.address}: {error}") from None
    except BaseException:
        await bus.close()
        raise
    if link.max_payload_bytes < SMALLEST_PAYLOAD_BYTES:
        log.warning("max_payload of the NATS server is small", bytes=link.max_payload_bytes)
    return bus


class _AtOnce:
    """Stands where a queue would for a handler that awaits nothing: a task would cost more than the call."""

    def __init__(self, receive: Callable[[Any], None]) -> None:
        self.put_nowait = receive

    def qsize(self) -> int:
        """Nothing ever waits."""
        return 0


class NatsSubscription:
    """Feeds one handler, in order, over any number of connections."""

    def __init__(
        self, subject: str, group: str, handler: Handler, forget: Callable[[NatsSubscription], None]
    ) -> None:
        self._subject = subject
        self._group = group
        self._handler = handler
        self._forget = forget
        self._attached: Any = None
        self.link: Link | None = None
        self._closed = False
        self._inbox: asyncio.Queue[Any] | _AtOnce = _AtOnce(self._receive)
        self._task: asyncio.Task[None] | None = None
        if awaits(handler):
            self._inbox = inbox = asyncio.Queue[Any](INBOX_MESSAGES)
            self._task = asyncio.create_task(self._dispatch(handler, inbox), name=f"subscription {subject}")

    async def attach(self, link: Link) -> None:
        """Subscribe on a new connection."""
        self.link = link
        self._attached = await link.subscribe(self._subject, self._group, self._inbox)
        if self._task is None:
            link.divert(self._attached, self._take)

    async def unsubscribe(self) -> None:
        """Stop; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._forget(self)
        if self.link is not None and self._attached is not None:
            self.link.restore(self._attached)
        with contextlib.suppress(Exception):  # nats-py: the connection may be gone, and the interest with it
            await self._attached.unsubscribe()
        if self._task is not None and asyncio.current_task() is not self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _receive(self, message: Any) -> None:
        self._take(Message(message.subject, message.data, message.reply))

    def _take(self, message: Message) -> None:
        if self._closed:
            return
        try:
            self._handler(message)
        except Exception:
            log.exception("a handler failed", subject=message.subject)

    async def _dispatch(self, handler: AwaitingHandler, inbox: asyncio.Queue[Any]) -> None:
        while not self._closed:
            message = await inbox.get()
            try:
                await handler(Message(message.subject, message.data, message.reply))
            except Exception:
                log.exception("a handler failed", subject=message.subject)


class NatsBus:
    """See `reverie_runtime.bus.port.Bus`."""

    def __init__(self, url: str, *, name: str) -> None:
        self._servers = [server.strip() for server in url.split(",")]
        self._name = name
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._listeners: list[Callable[[bool], None]] = []
        self._subscriptions: list[NatsSubscription] = []
        self._kept: dict[str, NatsBucket | NatsStream] = {}
        self.last_error = "no answer"
        self._complained_at = 0.0
        self._closed = False
        self._task = asyncio.create_task(self._stay_connected(), name="nats connection")

    @property
    def address(self) -> str:
        """Where the servers are, without credentials."""
        return ",".join(urlsplit(server).netloc.rpartition("@")[2] or server for server in self._servers)

    @property
    def connected(self) -> bool:
        """Whether the server can be reached right now."""
        return self._link is not None and self._link.usable

    @property
    def link(self) -> Link:
        """The live connection; BusUnavailable if there is none."""
        if self._link is None or not self._link.usable:
            raise BusUnavailable(f"NATS at {self.address} is not connected")
        return self._link

    async def wait_link(self) -> Link:
        """The live connection, as soon as there is one."""
        while self._link is None:
            await self._linked.wait()
        return self._link

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` after each (re)connect and each loss."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[bool], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    async def publish(self, subject: str, data: bytes) -> None:
        """Send to whoever listens now; dropped while disconnected."""
        if self._link is not None:
            with contextlib.suppress(BusUnavailable):
                await self._link.send(subject, data)

    async def request(self, subject: str, data: bytes, *, timeout: float) -> Message:
        """One answer within `timeout` seconds."""
        answer = await self.link.request(subject, data, timeout=timeout)
        return Message(answer.subject, answer.data, answer.reply)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message; what is published after the return reaches it."""
        subscription = NatsSubscription(subject, queue, handler, self._subscriptions.remove)
        self._subscriptions.append(subscription)
        if self._link is not None:
            with contextlib.suppress(BusUnavailable):  # it is attached again after the reconnect
                await subscription.attach(self._link)
                await self._link.echo(timeout=SUBSCRIBE_TIMEOUT_S)
        return subscription

    async def bucket(self, config: BucketConfig) -> NatsBucket:
        """The bucket, made if absent and again after every reconnect."""
        bucket = NatsBucket(self, config)
        await bucket.ensure(self.link)
        self._kept[f"KV_{config.name}"] = bucket
        return bucket

    async def stream(self, config: StreamConfig) -> NatsStream:
        """The stream, made if absent and again after every reconnect."""
        stream = NatsStream(self, config)
        await stream.ensure(self.link)
        self._kept[config.name] = stream
        return stream

    async def check(self, *, timeout: float) -> None:
        """Prove a round trip through JetStream."""
        await jetstream.account(self.link, timeout=timeout)

    async def close(self) -> None:
        """Flush, close; idempotent."""
        if self._closed:
            return
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.unsubscribe()
        if self._link is not None:
            await self._link.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _stay_connected(self) -> None:
        now = asyncio.get_running_loop().time
        alone_since = now()
        while True:
            try:
                link = await Link.open(self._servers, name=self._name, on_error=self._note)
            except BusError as error:
                self._note(error)
                patient = now() - alone_since > PATIENT_AFTER_S
                await asyncio.sleep(random.uniform(*(PATIENT_WAIT_S if patient else REFUSED_WAIT_S)))
                continue
            if self._closed:  # nats-py's connect can swallow the cancellation that `close` sent
                await link.close()
                return
            healing = asyncio.create_task(self._set_up(link))
            try:
                await link.wait_lost()
            finally:
                healing.cancel()
                await asyncio.gather(healing, return_exceptions=True)
                self._lose(link)
                alone_since = now()

    async def _set_up(self, link: Link) -> None:
        try:
            await self._attach(link)
            await self._heal(link)
            await self._attach(link)  # those that came meanwhile
        except Exception as error:  # whatever nats-py raises when the connection breaks under it
            self._note(error)
            link.drop()
            return
        self._link = link
        self._linked.set()
        log.info("connected to NATS", address=self.address)
        self._notify(connected=True)

    async def _attach(self, link: Link) -> None:
        while waiting := [each for each in self._subscriptions if each.link is not link]:
            await waiting[0].attach(link)

    async def _heal(self, link: Link) -> None:
        """Make again what the server lost; what another one replaced is reported only."""
        for kept in list(self._kept.values()):
            while True:
                try:
                    await kept.ensure(link)
                except BusUnavailable as error:
                    log.warning("bucket or stream cannot be checked yet", name=kept.name, reason=str(error))
                    await asyncio.sleep(HEAL_RETRY_S)
                    continue
                except BusError as error:
                    log.error("bucket or stream is not usable", name=kept.name, reason=str(error))
                break

    def _lose(self, link: Link) -> None:
        link.drop()
        if self._link is None:
            return
        self._link = None
        self._linked.clear()
        if not self._closed:
            log.warning("lost the connection to NATS", address=self.address)
        self._notify(connected=False)

    def _note(self, error: Exception) -> None:
        self.last_error = str(error) or type(error).__name__
        now = asyncio.get_running_loop().time()
        if isinstance(error, nats.errors.SlowConsumerError) and now - self._complained_at > COMPLAINT_S:
            self._complained_at = now
            log.warning("a slow handler loses messages", subject=error.subject)

    def _notify(self, *, connected: bool) -> None:
        for listener in list(self._listeners):
            try:
                listener(connected)
            except Exception:
                log.exception("a connection listener failed")
