"""What administrators did, for those who ask later: events on `audit.<action>`, kept by the stream `AUDIT`.

Told after the deed and never waited for: an audit that is slow or away holds up nobody.  Each event also stands in
this process's log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from reverie_gateway.identity import Identity
from reverie_protocol.instances import AuditEvent
from reverie_protocol.subjects import AUDIT, AUDIT_RETENTION_S, AUDIT_STREAM, audit
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import BusError, Stream, StreamConfig
from reverie_runtime.clock import Clock

AUDIT_LOG = StreamConfig(AUDIT_STREAM, (AUDIT,), AUDIT_RETENTION_S)
#: Events that may wait for NATS; beyond it the oldest stand in the process's log only.
MAX_WAITING = 10_000
#: Longest that the end of the gateway waits for the last events, in seconds.
FLUSH_S = 1.0

log = structlog.get_logger(__name__)


class Auditor:
    """Takes events at once and writes them in order, each until it is durable (so at least once)."""

    def __init__(self, stream: Stream, *, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._waiting: deque[AuditEvent] = deque(maxlen=MAX_WAITING)
        self._wakened = asyncio.Event()

    def note(
        self, action: str, by: Identity, *, target: str = "", detail: str = "", allowed: bool = True
    ) -> None:
        """Tell that somebody did something, or was refused to; no prompt text and no secret may be in it."""
        event = AuditEvent(
            action=action,
            user=by.owner,
            target=target,
            allowed=allowed,
            detail=detail,
            request_id=str(structlog.contextvars.get_contextvars().get("request_id", "")),
            at=self._clock.time(),
        )
        log.info("audit", action=action, user=by.owner, target=target, detail=detail, allowed=allowed)
        self._waiting.append(event)
        self._wakened.set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Write while the context is open; on leaving, what waits is tried once more."""
        async with acting(self._round, name="audit", clock=self._clock):
            yield
        await self._flush()

    async def _flush(self) -> None:
        if self._waiting:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._write()
            except (BusError, TimeoutError) as error:
                log.warning(
                    "audit events stand in this log only", count=len(self._waiting), reason=str(error)
                )

    async def _round(self) -> None:
        await self._wakened.wait()
        await self._write()
        self._wakened.clear()

    async def _write(self) -> None:
        while self._waiting:
            event = self._waiting[0]
            await self._stream.append(audit(event.action), msgspec.json.encode(event))
            if self._waiting and self._waiting[0] is event:
                self._waiting.popleft()
