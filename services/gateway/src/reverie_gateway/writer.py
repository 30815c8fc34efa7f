"""From the outboxes to the sockets: what one turn of the event loop brings a socket goes out in one write.

A frame alone is not delayed by that: the turn ends before the loop looks at any socket again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.wire import Wire

if TYPE_CHECKING:  # it needs a turn
    from reverie_gateway.audience import Audience

#: How long a client that is to be closed may take to read what was sent before, in seconds; it costs us a buffer.
CLOSE_GRACE_S: Final = 30.0


log = structlog.get_logger(__name__)


class Turn:
    """Who has something to send in this turn of the event loop."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._audiences: list[Audience] = []
        self._writers: list[Writer] = []

    def add_audience(self, audience: Audience) -> None:
        """Let an audience send at the end of this turn."""
        self._schedule()
        self._audiences.append(audience)

    def add(self, writer: Writer) -> None:
        """Let a writer send at the end of this turn."""
        self._schedule()
        self._writers.append(writer)

    def count(self, texts: int = 0, *, previews: int = 0) -> None:
        """Frames were sent."""
        self._metrics.sent(texts=texts, previews=previews)

    def closed(self, outbox: Outbox) -> None:
        """A socket is being closed."""
        if outbox.closing is not None:
            self._metrics.closed(outbox.closing)

    def _schedule(self) -> None:
        if not self._audiences and not self._writers:
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        audiences, self._audiences = self._audiences, []
        writers, self._writers = self._writers, []
        texts = 0
        # Audiences first: a session comes back to one that has sent everything.
        senders: list[Audience | Writer] = [*audiences, *writers]
        for sender in senders:
            try:
                texts += sender.send()
            except Exception:  # whatever is wrong with one socket, the others must not wait for ever
                log.exception("a socket could not be written to")
        self.count(texts)


class Writer:
    """Sends what a socket's outbox holds, as fast as the client reads, and closes the socket when it is to end."""

    __slots__ = ("_audience", "_grace", "_outbox", "_session", "_turn", "_wire")

    def __init__(self, outbox: Outbox, wire: Wire, turn: Turn) -> None:
        self._outbox = outbox
        self._wire = wire
        self._turn = turn
        self._grace: asyncio.TimerHandle | None = None
        self._session: Session | None = None
        self._audience: Audience | None = None
        outbox.on_ready = self._on_ready
        outbox.on_full = self._on_full
        wire.on_relief = self._on_relief

    def follow(self, session: Session, audience: Audience) -> None:
        """Let a session stand together with the others of its audience while its outbox is empty."""
        self._session, self._audience = session, audience
        self._turn.add(self)

    def stop(self) -> None:
        """Send nothing more; idempotent."""
        self._outbox.on_ready = self._outbox.on_full = _nothing
        self._wire.on_relief = None
        self._session = self._audience = None
        if self._grace is not None:
            self._grace.cancel()

    def send(self) -> int:
        """Send what the client takes; the number of text frames."""
        wire, outbox = self._wire, self._outbox
        sent = 0
        while not wire.congested and (frames := outbox.take()):
            wire.write(frames[0] if len(frames) == 1 else b"".join(frames))
            sent += len(frames)
        if outbox.closing is not None or outbox:
            self._finish()
        elif self._audience is not None and self._session is not None and not wire.congested:
            self._audience.come_back(self._session, wire)
        return sent

    def _finish(self) -> None:
        """Previews, and the end."""
        wire, outbox = self._wire, self._outbox
        while not wire.congested and (frame := outbox.take_preview()) is not None:
            wire.write(frame)
            self._turn.count(previews=1)
        code = outbox.closing
        if code is None:
            return
        if self._grace is None:
            self._turn.closed(outbox)
            self._grace = asyncio.get_running_loop().call_later(CLOSE_GRACE_S, wire.abort)
        if not wire.congested:
            wire.close(code)

    def _on_ready(self) -> None:
        self._turn.add(self)
        if self._audience is not None and self._session is not None:
            self._audience.step_aside(self._session)

    def _on_full(self) -> None:
        self._turn.count(self.send())

    def _on_relief(self) -> None:
        self._turn.add(self)


def _nothing() -> None:
    """The socket is gone."""
