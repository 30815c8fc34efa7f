"""A session's log: one key whose every revision is kept.  Appending is a compare-and-set, which is also the fence.

Who takes a session over appends first; whoever had it before gets `SessionLost` at its next append, however long it
was frozen, and so can decide nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from reverie_protocol.dream_log import DreamHappening, DreamLogEntry
from reverie_protocol.subjects import DREAM_LOG_BUCKET, DREAM_LOG_REVISIONS
from reverie_runtime.bus.port import Bucket, BucketConfig, BusUnavailable, RevisionConflict, WriteUncertain
from reverie_runtime.clock import Clock

DREAM_LOG: Final = BucketConfig(DREAM_LOG_BUCKET, history=DREAM_LOG_REVISIONS, republish="dream.log")
#: Pause before an append that could not be made is tried again, in seconds.
RETRY_S: Final = 0.2

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(DreamLogEntry)
log = structlog.get_logger(__name__)


class SessionLost(Exception):
    """Another process has this session."""


class SessionLog:
    """`host` writes it; `new_op` names each write, so that a lost reply is no doubt."""

    def __init__(
        self, bucket: Bucket, session_id: str, *, host: str, clock: Clock, new_op: Callable[[], str]
    ) -> None:
        self._bucket = bucket
        self._session_id = session_id
        self._host = host
        self._clock = clock
        self._new_op = new_op
        self._revision = 0

    async def load(self) -> list[DreamLogEntry]:
        """All that happened; from here `append` goes on."""
        entries, self._revision = await read_log(self._bucket, self._session_id)
        return entries

    async def append(self, events: Sequence[DreamHappening]) -> DreamLogEntry:
        """Make events durable, however long that takes; SessionLost if somebody else has written meanwhile."""
        entry = DreamLogEntry(at=self._clock.time(), host=self._host, op=self._new_op(), events=tuple(events))
        content = _encoder.encode(entry)
        while True:
            try:
                self._revision = await self._bucket.update(self._session_id, content, self._revision)
            except (RevisionConflict, WriteUncertain):
                if await self._written(entry.op):
                    return entry
            except BusUnavailable as error:
                log.info("the log waits for the bus", session=self._session_id, reason=str(error))
                await self._clock.sleep(RETRY_S)
            else:
                return entry

    async def _written(self, op: str) -> bool:
        """Whether our uncertain write is the latest revision; False if nothing was written."""
        while True:
            try:
                latest = await self._bucket.get(self._session_id)
            except BusUnavailable:
                await self._clock.sleep(RETRY_S)
                continue
            if latest is None and self._revision == 0:
                return False
            if latest is None or latest.value is None:
                raise SessionLost(self._session_id)
            if latest.revision == self._revision:
                return False
            if _decoder.decode(latest.value).op != op:
                raise SessionLost(self._session_id)
            self._revision = latest.revision
            return True


async def read_log(bucket: Bucket, session_id: str) -> tuple[list[DreamLogEntry], int]:
    """All entries of a session's log, oldest first, and the last revision."""
    revisions = [entry for entry in await bucket.history(session_id) if entry.value is not None]
    entries = [_decoder.decode(entry.value or b"") for entry in revisions]
    return entries, revisions[-1].revision if revisions else 0
