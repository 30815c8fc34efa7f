"""What a dreams process tells the bus: states on change and every two seconds, candidates as they are found."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from reverie_protocol.dreams import DreamCandidate, DreamCandidateEvent, DreamSession, DreamStatusEvent
from reverie_protocol.subjects import DREAM_STATUS, dream_candidate
from reverie_runtime.bus.port import Bus, BusError

#: Candidates that wait to be told, at most; the oldest go: they are in the top list all the same.
MOST_WAITING = 256

_encoder = msgspec.json.Encoder()


class Publisher:
    """`found` may be called anywhere; `send` brings it out."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._found: list[DreamCandidateEvent] = []
        #: Set when there is something to tell.
        self.dirty = asyncio.Event()

    def found(self, session: DreamSession, candidate: DreamCandidate) -> None:
        """A candidate was kept or rendered."""
        self._found.append(
            DreamCandidateEvent(session_id=session.id, owner=session.owner, candidate=candidate)
        )
        del self._found[:-MOST_WAITING]
        self.dirty.set()

    async def status(self, session: DreamSession) -> None:
        """How a session does now."""
        event = DreamStatusEvent(
            session_id=session.id, owner=session.owner, state=session.state, stats=session.stats
        )
        with contextlib.suppress(BusError):
            await self._bus.publish(DREAM_STATUS, _encoder.encode(event))

    async def send(self) -> None:
        """Tell of the candidates that were found."""
        found, self._found = self._found, []
        for event in found:
            with contextlib.suppress(BusError):
                await self._bus.publish(dream_candidate(event.session_id), _encoder.encode(event))
