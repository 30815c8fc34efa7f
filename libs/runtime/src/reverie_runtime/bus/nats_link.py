"""One TCP connection to NATS: opened once, lost once, never reused.

nats-py can reconnect by itself, but it gives up for good on some server errors, waits without end for a frozen peer
to take its last bytes, and cancels no half-finished call.  So a connection here lives as long as its socket, and
`NatsBus` opens the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from typing import Any, Final, Protocol

import nats.errors
from nats.aio.client import Client

from reverie_runtime.bus.nats_intake import Intake, Take
from reverie_runtime.bus.port import (
    BusError,
    BusUnavailable,
    MessageTooLarge,
    NoResponders,
    RequestTimeout,
)

HANDSHAKE_TIMEOUT_S: Final = 2.0
#: Between two attempts while no server answers; a refused one costs well under a millisecond.
RETRY_WAIT_S: Final = (0.02, 0.08)
#: An idle or half-open connection is noticed after at most ECHO_INTERVAL_S + ECHO_TRIES * ECHO_TIMEOUT_S.
ECHO_INTERVAL_S: Final = 1.5
ECHO_TIMEOUT_S: Final = 1.0
#: A process that was busy for a second must not mistake itself for a dead server.
ECHO_TRIES: Final = 2
#: Unsent bytes above which a sender waits for the server to catch up.
BACKLOG_BYTES: Final = 1 << 20


class Inbox(Protocol):
    """What takes raw messages: a queue, or something that stands in its place."""

    def put_nowait(self, message: Any, /) -> None:
        """Take one, at once."""


class LinkLost(BusUnavailable):
    """The connection broke after the message had been handed to it."""


class Link:
    """A live connection; `open` makes one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._intake = Intake(client)
        self._prefix = client.new_inbox()
        self._tokens = itertools.count()
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    @classmethod
    async def open(cls, servers: list[str], *, name: str, on_error: Callable[[Exception], None]) -> Link:
        """Try until a server answers; BusUnavailable if one answered but refused."""
        client = Client()

        async def note(error: Exception) -> None:
            on_error(error)

        try:
            await client.connect(
                servers=servers,
                name=name,
                allow_reconnect=False,
                max_reconnect_attempts=-1,
                reconnect_time_wait=random.uniform(*RETRY_WAIT_S),
                connect_timeout=HANDSHAKE_TIMEOUT_S,
                ping_interval=3600,  # `wait_lost` asks for itself, and notices within seconds
                pending_size=64 * BACKLOG_BYTES,  # `send` keeps below it
                error_cb=note,
            )
            link = cls(client)
            await client.subscribe(f"{link._prefix}.*", cb=link._answered)
            await link.echo(timeout=HANDSHAKE_TIMEOUT_S)
        except Exception as error:  # also what a malformed URL makes nats-py raise
            _abort(client)
            raise BusUnavailable(f"NATS refused the connection: {error}") from error
        except BaseException:
            _abort(client)
            raise
        return link

    @property
    def usable(self) -> bool:
        """Whether a message can be handed to the socket."""
        return bool(self._client.is_connected)

    @property
    def max_payload_bytes(self) -> int:
        """The largest message that the server takes."""
        return int(self._client.max_payload)

    def new_inbox(self) -> str:
        """A subject that nobody else has."""
        return str(self._client.new_inbox())

    async def subscribe(self, subject: str, group: str, into: Inbox) -> Any:
        """Let nats-py put raw messages of `subject` straight into a queue; overflow drops the newest."""
        subscription = await self._client.subscribe(subject, queue=group, pending_bytes_limit=0)
        # Private: nats-py would run the handler in a task that dies with the connection, and with it the handler.
        ours, subscription._pending_queue = subscription._pending_queue, into
        while not ours.empty():
            into.put_nowait(ours.get_nowait())
        return subscription

    def divert(self, subscription: Any, take: Take) -> None:
        """Let `take` have messages of a subscription as they come in; some still go into its queue."""
        self._intake.divert(subscription, take)

    def restore(self, subscription: Any) -> None:
        """Stop that; idempotent."""
        self._intake.restore(subscription)

    async def send(
        self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Hand over one message; BusUnavailable if that was surely not possible."""
        if not self.usable:
            raise BusUnavailable("NATS is not connected")
        if len(data) > self.max_payload_bytes:
            raise MessageTooLarge(
                f"a message of {len(data)} bytes is over the server's max_payload of {self.max_payload_bytes}"
            )
        if self._client.pending_data_size > BACKLOG_BYTES:
            await self.echo(timeout=ECHO_TIMEOUT_S)
        try:
            await self._client.publish(subject, data, reply=reply, headers=headers)
        except nats.errors.BadSubjectError:
            raise BusError(f"not a subject: {subject!r}") from None
        except nats.errors.Error as error:
            raise BusUnavailable(f"NATS is not connected: {error}") from error

    async def request(
        self, subject: str, data: bytes, *, timeout: float, headers: dict[str, str] | None = None
    ) -> Any:
        """One raw answer; NoResponders, RequestTimeout, LinkLost, or BusUnavailable if it was not sent."""
        with self._expect_answer() as (reply, answer):
            try:
                async with asyncio.timeout(timeout):
                    await self.send(subject, data, reply=reply, headers=headers)
                    message = await answer
            except TimeoutError:
                raise RequestTimeout(f"no answer on {subject} within {timeout:g} s") from None
        if message.headers and message.headers.get("Status") == "503":
            raise NoResponders(f"nobody listens on {subject}")
        return message

    async def echo(self, *, timeout: float) -> None:
        """Send a message to myself: once it is back, the server has handled all that was sent before it."""
        with self._expect_answer() as (reply, answer):
            try:
                async with asyncio.timeout(timeout):
                    await self._client.publish(reply)
                    await answer
            except (TimeoutError, nats.errors.Error) as error:
                raise BusUnavailable("NATS does not answer") from error

    async def wait_lost(self) -> None:
        """Return once the connection is over: broken, or nothing comes back."""
        reading = self._client._reading_task  # private: the one thing that ends with every kind of loss
        while True:
            await asyncio.wait({reading}, timeout=ECHO_INTERVAL_S)
            if reading.done() or not self.usable or not await self._answers():
                return

    def drop(self) -> None:
        """End the connection at once; calls in flight raise LinkLost."""
        _abort(self._client)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkLost("the connection to NATS was lost before the answer came"))

    async def close(self) -> None:
        """Send what is left, then end."""
        with contextlib.suppress(BusUnavailable):
            await self.echo(timeout=ECHO_TIMEOUT_S)
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
            async with asyncio.timeout(ECHO_TIMEOUT_S):
                await self._client.close()
        self.drop()

    @contextlib.contextmanager
    def _expect_answer(self) -> Any:
        token = str(next(self._tokens))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            yield f"{self._prefix}.{token}", answer
        finally:
            del self._waiting[token]
            answer.cancel()

    async def _answered(self, message: Any) -> None:
        answer = self._waiting.get(message.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _answers(self) -> bool:
        """Whether anything comes back.  Behind a long replay the echo may be late; what arrives proves as much."""
        for _ in range(ECHO_TRIES):
            received = self._client.stats["in_msgs"]
            try:
                await self.echo(timeout=ECHO_TIMEOUT_S)
            except BusUnavailable:
                if self._client.stats["in_msgs"] == received:
                    continue
            return True
        return False


def _abort(client: Any) -> None:
    # Private: `close` waits until a frozen peer has read the last bytes, possibly for ever; `abort` does not.
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
