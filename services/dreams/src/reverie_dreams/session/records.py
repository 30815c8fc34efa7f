"""The records of sessions in the bucket `dreams`: one compare-and-set per change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from reverie_jobs.mirror import Mirror
from reverie_protocol.dream_control import DreamHost
from reverie_protocol.dreams import DreamSession
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.subjects import DREAM_HOST_TTL_S, DREAM_HOSTS_BUCKET, DREAMS_BUCKET
from reverie_runtime.bus.port import Bucket, BucketConfig, BusUnavailable, RevisionConflict, WriteUncertain

DREAMS: Final = BucketConfig(DREAMS_BUCKET)
DREAM_HOSTS: Final = BucketConfig(DREAM_HOSTS_BUCKET, ttl_s=DREAM_HOST_TTL_S)
MAX_ROUNDS: Final = 16

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(DreamSession)

Change = Callable[[DreamSession], DreamSession | None]


class SessionMirror(Mirror[DreamSession]):
    """All session records."""

    def __init__(self) -> None:
        super().__init__(DreamSession)

    def of_owner(self, owner: str) -> list[DreamSession]:
        """An owner's sessions, those under way first, the latest first among equals."""
        own = [session for session in self if session.owner == owner]
        return sorted(own, key=lambda session: (session.state.over, -session.started_at))


class HostMirror(Mirror[DreamHost]):
    """The dreams processes that beat."""

    def __init__(self) -> None:
        super().__init__(DreamHost)


class SessionStore:
    """Reads and changes records; `new_op` names each write."""

    def __init__(self, bucket: Bucket, *, new_op: Callable[[], str]) -> None:
        self._bucket = bucket
        self._new_op = new_op

    async def create(self, session: DreamSession) -> None:
        """Write a record under an id that nobody had; BusUnavailable if that cannot be known."""
        for _ in range(MAX_ROUNDS):
            try:
                await self._bucket.create(session.id, _encoder.encode(session))
            except (RevisionConflict, WriteUncertain):
                if (found := await self.get(session.id)) is not None and found.op == session.op:
                    return
            else:
                return
        raise BusUnavailable("the session could not be written")

    async def get(self, session_id: str) -> DreamSession | None:
        """The latest record."""
        entry = await self._bucket.get(session_id)
        return None if entry is None or entry.value is None else _decoder.decode(entry.value)

    async def apply(self, session_id: str, change: Change) -> DreamSession:
        """Change a record; `change` gets the latest and may be called again, None leaves it as it is.

        ReverieError `session_not_found`; BusUnavailable if nothing was written.
        """
        ops: set[str] = set()
        for _ in range(MAX_ROUNDS):
            entry = await self._bucket.get(session_id)
            if entry is None or entry.value is None:
                raise session_not_found()
            held = _decoder.decode(entry.value)
            if held.op in ops:
                return held
            changed = change(held)
            if changed is None:
                return held
            changed = replace(changed, op=self._new_op())
            ops.add(changed.op)
            try:
                await self._bucket.update(session_id, _encoder.encode(changed), entry.revision)
            except (RevisionConflict, WriteUncertain):
                continue
            return changed
        raise BusUnavailable("the session could not be written")

    async def forget(self, session_id: str) -> None:
        """Remove a record for good."""
        await self._bucket.purge(session_id)


def session_not_found() -> ReverieError:
    """For whoever may not know of a session as for one that there is not."""
    return ReverieError(ErrorCode.SESSION_NOT_FOUND, "there is no such dream session")
