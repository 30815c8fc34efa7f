"""Messages for handlers that await nothing, taken where the connection's bytes come in.

nats-py brings a message to its callback by way of a stream buffer, a task, another turn of the event loop and four
coroutines: a third to a half of all that one event costs a gateway beside the sockets it goes to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from nats.protocol.parser import AWAITING_CONTROL_LINE

from reverie_runtime.bus.port import Message

_MSG: Final = b"MSG "
_END: Final = b"\r\n"

Take = Callable[[Message], None]


class Intake(asyncio.Protocol):
    """Stands before nats-py's own protocol and passes on all but whole messages of diverted subscriptions.

    Only while nats-py has read and handled everything before, so the order within a subscription stays.
    """

    def __init__(self, client: Any) -> None:
        self._takers: dict[bytes, Take] = {}
        self._stats = client.stats
        # Private: nats-py's parser, with what it has of an unfinished message.
        self._parser = client._ps
        # Private: a connection over WebSocket has neither, and diverts nothing.
        writer = getattr(client._transport, "_io_writer", None)
        self._reader: Any = getattr(client._transport, "_io_reader", None)
        if writer is not None:
            self._behind = writer.transport.get_protocol()
            writer.transport.set_protocol(self)

    def divert(self, subscription: Any, take: Take) -> None:
        """From now on `take` gets what arrives in one piece for a subscription of nats-py; it may not raise."""
        self._takers[_number(subscription)] = take

    def restore(self, subscription: Any) -> None:
        """Stop that; idempotent."""
        self._takers.pop(_number(subscription), None)

    def data_received(self, data: bytes) -> None:
        """Bytes of the server."""
        taken = self._take(data) if self._is_idle() else 0
        if taken < len(data):
            self._behind.data_received(data[taken:] if taken else data)

    def eof_received(self) -> bool | None:
        """The server says no more."""
        return bool(self._behind.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._behind.connection_lost(exc)

    def pause_writing(self) -> None:
        """The server does not read."""
        self._behind.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._behind.resume_writing()

    def _is_idle(self) -> bool:
        """Whether nats-py waits for more, with nothing begun."""
        waiter = self._reader._waiter  # private: asyncio's stream reader has no public way to ask
        begun = self._parser.buf or self._parser.state != AWAITING_CONTROL_LINE
        return waiter is not None and not waiter.done() and not begun

    def _take(self, data: bytes) -> int:
        """Hand over the messages at the beginning that are diverted and whole; how many bytes that was."""
        at = 0
        while data.startswith(_MSG, at):
            # MSG <subject> <subscription> [<reply to>] <bytes>
            end = data.find(_END, at)
            fields = data[at + len(_MSG) : end].split()
            if end < 0 or not 3 <= len(fields) <= 4 or not fields[-1].isdigit():
                break
            take = self._takers.get(fields[1])
            begin = end + len(_END)
            stop = begin + int(fields[-1])
            if take is None or len(data) < stop + len(_END):
                break
            try:
                subject, reply = fields[0].decode(), fields[2].decode() if len(fields) == 4 else ""
            except UnicodeDecodeError:
                break  # nats-py ends such a connection
            at = stop + len(_END)
            self._stats["in_msgs"] += 1
            self._stats["in_bytes"] += stop - begin
            take(Message(subject, data[begin:stop], reply))
        return at


def _number(subscription: Any) -> bytes:
    return str(subscription._id).encode()  # private: what the server calls it
