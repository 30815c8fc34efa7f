"""The sessions of one owner: an event is the same bytes for all of them, so most need no queue of their own.

A session whose socket has taken everything stands *together* with others like it: what one turn of the event loop
brings is joined once and written to all their sockets.  A session with anything of its own to send or to wait for
stands *apart*: its events go through its outbox, in order with the rest.  It steps aside before its first own
frame, taking the events of this turn along, and comes back at the end of a turn that left it nothing to send.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from reverie_gateway.events import Event
from reverie_gateway.identity import Identity
from reverie_gateway.outbox import CHUNK_BYTES, Outbox
from reverie_gateway.session import Session, put_event
from reverie_gateway.wire import Wire
from reverie_gateway.writer import Turn

#: The batch of a turn is sent once it is larger than a chunk, and knows no other bound.
UNBOUNDED: Final = 1 << 62


class Audience:
    """Whoever is to hear of one owner's jobs."""

    __slots__ = ("_apart", "_batch", "_batch_bytes", "_events", "_latest", "_together", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._apart: dict[Session, None] = {}
        self._together: dict[Session, Wire] = {}
        self._turn = turn
        # What the batch holds, for who steps aside before it is sent.
        self._events: list[Event] = []
        self._latest: dict[str, bytes] = {}
        self._batch = Outbox(max_bytes=UNBOUNDED)
        self._batch_bytes = 0

    def __iter__(self) -> Iterator[Session]:
        """Every session."""
        yield from self._apart
        yield from self._together

    def __len__(self) -> int:
        return len(self._apart) + len(self._together)

    def join(self, session: Session) -> None:
        """Let a session hear what comes from now on."""
        self._apart[session] = None

    def leave(self, session: Session) -> None:
        """Stop that; idempotent."""
        self._apart.pop(session, None)
        self._together.pop(session, None)

    def deliver(self, event: Event) -> None:
        """One event for all."""
        if self._batch_bytes > CHUNK_BYTES:
            self._turn.count(self.send())
        if self._apart:
            # A copy: who takes what has come together at once may come back, and step aside again, meanwhile.
            for session in tuple(self._apart):
                session.deliver(event)
        if self._together:
            self._schedule()
            self._events.append(event)
            self._batch_bytes += len(event.frame)
            put_event(event, self._batch)

    def tell(self, key: str, frame_of: Callable[[Identity], bytes]) -> None:
        """A frame that replaces an unsent one of the same key, for all: each as it may see it.

        One owner's sessions see the same, but for those of an administrator.
        """
        for session in tuple(self._apart):
            session.outbox.put_latest(key, frame_of(session.identity))
        if len({session.identity.admin for session in self._together}) == 1:
            self._schedule()
            frame = self._latest[key] = frame_of(next(iter(self._together)).identity)
            self._batch.put_latest(key, frame)
            return
        for session in tuple(self._together):
            session.outbox.put_latest(key, frame_of(session.identity))

    def _schedule(self) -> None:
        if not self._events and not self._latest:
            self._turn.add_audience(self)

    def step_aside(self, session: Session) -> None:
        """A session is about to have something of its own to send."""
        if self._together.pop(session, None) is not None:
            self._apart[session] = None
            for event in self._events:
                session.deliver(event)
            for key, frame in self._latest.items():
                session.outbox.put_latest(key, frame)

    def come_back(self, session: Session, wire: Wire) -> None:
        """A session has nothing left to send."""
        if session in self._apart and session.plain and not self._events and not self._latest:
            del self._apart[session]
            self._together[session] = wire

    def send(self) -> int:
        """Write what this turn brought to all who stand together; the number of frames."""
        frames = self._batch.take_all()
        data = b"".join(frames)
        size = len(data)
        write = os.write
        behind: list[Session] = []
        # The innermost loop of the gateway: one system call a socket, and as little as can be beside it.
        for session, wire in self._together.items():
            try:
                written = write(wire.descriptor, data)
            except OSError:  # it is full, broken, or has no descriptor for us
                written = 0
            if written == size:
                continue
            if wire.congested:
                behind.append(session)
            else:
                wire.write(data[written:])
        for session in behind:
            self.step_aside(session)
        self._events.clear()
        self._latest.clear()
        self._batch_bytes = 0
        return len(frames) * len(self._together)
