"""From the outboxes to the sockets: what one turn of the event loop brings a socket goes out in one write.

A frame alone is not delayed by that: the turn ends before the loop looks at any socket again.
"""

from __future__ import annotations

import asyncio
from typing import Final

from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.wire import Wire

#: How long a client that is to be closed may take to read what was sent before, in seconds; it costs us a buffer.
CLOSE_GRACE_S: Final = 30.0


class Turn:
    """The sockets that have something to send in this turn of the event loop."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self.metrics = metrics
        self._ready: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Let a writer send at the end of this turn."""
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._send)
        self._ready.append(writer)

    def _send(self) -> None:
        ready, self._ready = self._ready, []
        texts = 0
        for writer in ready:
            texts += writer.send()
        self.metrics.sent(texts=texts)


class Writer:
    """Sends what a socket's outbox holds, as fast as the client reads, and closes the socket when it is to end."""

    __slots__ = ("_grace", "_outbox", "_turn", "_wire")

    def __init__(self, outbox: Outbox, wire: Wire, turn: Turn) -> None:
        self._outbox = outbox
        self._wire = wire
        self._turn = turn
        self._grace: asyncio.TimerHandle | None = None
        outbox.on_ready = self._on_ready
        outbox.on_full = self._on_full
        wire.on_relief = self._on_full

    def stop(self) -> None:
        """Send nothing more; idempotent."""
        self._outbox.on_ready = self._outbox.on_full = _nothing
        self._wire.on_relief = None
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
        return sent

    def _finish(self) -> None:
        """Previews, and the end."""
        wire, outbox = self._wire, self._outbox
        while not wire.congested and (frame := outbox.take_preview()) is not None:
            wire.write(frame)
            self._turn.metrics.sent(previews=1)
        code = outbox.closing
        if code is None:
            return
        if self._grace is None:
            self._turn.metrics.closed(code)
            self._grace = asyncio.get_running_loop().call_later(CLOSE_GRACE_S, wire.abort)
        if not wire.congested:
            wire.close(code)

    def _on_ready(self) -> None:
        self._turn.add(self)

    def _on_full(self) -> None:
        self._turn.metrics.sent(texts=self.send())


def _nothing() -> None:
    """The socket is gone."""
