"""uvicorn's HTTP parser with two things of ours: the answer to what is no HTTP, and an end to waiting.

uvicorn waits for ever for the rest of a request that has begun, and a connection that has sent nothing at all has
not even that.  Here each connection has a deadline while it owes us something: the head of a request (that of a
WebSocket handshake too), or more of its body.  Between requests uvicorn's own keep-alive limit holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import h11
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from reverie_runtime.patience import Deadline, Patience

_REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout"}
BAD_REQUEST, REQUEST_TIMEOUT = _REASONS

#: The JSON body of an answer to what is no request, from its status and a sentence.
ErrorJson = Callable[[int, str], bytes]


def plain_error(status: int, detail: str) -> bytes:
    """The sentence alone."""
    return msgspec.json.encode({"detail": detail})


def http_parser(patience: Patience, error_json: ErrorJson = plain_error) -> type[HttpParser]:
    """The protocol class for uvicorn, which makes the objects itself, with this patience."""
    members = {"patience": patience, "error_json": staticmethod(error_json)}
    return type("PatientHttpParser", (HttpParser,), members)


class HttpParser(H11Protocol):
    """One connection."""

    patience: Patience
    error_json: ErrorJson
    _deadline: Deadline | None = None
    _timer: asyncio.TimerHandle | None = None
    _handed_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A client has connected, and owes us a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._on_reading)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Part of a request, or several."""
        super().data_received(data)
        if not self._client_owes():
            self._settle()
            self._limit_idleness()
        elif self._deadline is None:
            self._expect()
        elif self.conn.their_state is h11.SEND_BODY and not self._answered_early:
            self._deadline.arrived(len(data), self.loop.time())

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The handshake is here; from now on the connection is the WebSocket protocol's."""
        self._settle()
        self._handed_over = True
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """An answer is out, perhaps before the request was in."""
        super().on_response_complete()
        if self._client_owes():
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, by whichever side."""
        self._settle()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP and hang up; there is no request that could have an id."""
        self._hang_up(BAD_REQUEST, "this is not a valid HTTP request")

    def _client_owes(self) -> bool:
        """Whether a request has begun that is not complete; the handshake of a WebSocket is."""
        state = self.conn.their_state
        if self._handed_over or self.transport.is_closing():
            return False
        return state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))

    @property
    def _answered_early(self) -> bool:
        """Whether the answer went out before the body was in: what still comes is thrown away, and not for long."""
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _limit_idleness(self) -> None:
        """uvicorn forgets its keep-alive limit where a body ends behind its answer."""
        idle = self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE
        if idle and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _expect(self) -> None:
        self._deadline = Deadline(self.patience, self.loop.time())
        if self._timer is None:
            self._timer = self.loop.call_at(self._deadline.at, self._look)

    def _settle(self) -> None:
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """The deadline may have come; it may also have been put off."""
        self._timer = None
        if self._deadline is None or self.transport.is_closing():
            return
        now = self.loop.time()
        if self._waits_for_us():
            self._deadline.restart(now)
        if now < self._deadline.at:
            self._timer = self.loop.call_at(self._deadline.at, self._look)
        else:
            self._cut()

    def _waits_for_us(self) -> bool:
        """Whether the client could not have sent anything: we do not read, or have not asked it to go on."""
        if self._answered_early or self.conn.their_state is not h11.SEND_BODY:
            return False
        return self.flow.read_paused or self.cycle.waiting_for_100_continue

    def _on_reading(self) -> None:
        if self._deadline is not None and not self._answered_early:
            self._deadline.restart(self.loop.time())

    def _cut(self) -> None:
        """End a request that does not come."""
        self._deadline = None
        nothing_came = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if nothing_came or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # To whoever reads the body, the client is gone; the answer is given here.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._hang_up(REQUEST_TIMEOUT, "the request did not come in time, or too slowly")

    def _hang_up(self, status: int, detail: str) -> None:
        body = self.error_json(status, detail)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        events: tuple[Any, ...] = (
            h11.Response(status_code=status, headers=headers, reason=_REASONS[status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Flow(FlowControl):
    """uvicorn's flow control, which tells when reading goes on."""

    def __init__(self, transport: asyncio.Transport, on_reading: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_reading = on_reading

    def resume_reading(self) -> None:
        """Read on, if it was paused."""
        paused = self.read_paused
        super().resume_reading()
        if paused:
            self._on_reading()
