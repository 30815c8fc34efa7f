"""What stays and what goes: pictures of sessions are used, jobs of drafts are forgotten, old sessions too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from reverie_dreams.hosting import Hosting
from reverie_dreams.session.drafts import Drafts
from reverie_dreams.session.records import SessionMirror, SessionStore
from reverie_dreams.settings import DreamsSettings
from reverie_jobs.mirror import JobMirror
from reverie_protocol.dreams import DreamSession
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bucket, BusError
from reverie_runtime.clock import Clock
from reverie_storage.port import StorageUnavailable

#: What was used within ten minutes is left alone by the sweepers of the store; so often it is used, in seconds.
ROUND_S: Final = 240.0

log = structlog.get_logger(__name__)


class Keeper:
    """Every process does it: all of it can be done twice."""

    def __init__(
        self,
        settings: DreamsSettings,
        *,
        store: SessionStore,
        sessions: SessionMirror,
        jobs: JobMirror,
        hosting: Hosting,
        drafts: Drafts,
        log_bucket: Bucket,
        clock: Clock,
    ) -> None:
        self._kept_s = settings.keep_days * 86_400
        self._store = store
        self._sessions = sessions
        self._jobs = jobs
        self._hosting = hosting
        self._drafts = drafts
        self._log_bucket = log_bucket
        self._clock = clock
        self._keys: dict[str, frozenset[str]] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """A round at once and every `ROUND_S` during the block."""
        async with acting(self._round, name="keeper", clock=self._clock):
            yield

    async def clean(self) -> None:
        """One round."""
        now = self._clock.time()
        for session in tuple(self._sessions):
            if session.ended_at is not None and session.ended_at + self._kept_s < now:
                await self._log_bucket.purge(session.id)
                await self._store.forget(session.id)
                self._keys.pop(session.id, None)
                log.info("an old session is forgotten", session=session.id)
                continue
            await self._touch(session)
        await self._forget_jobs()

    async def _touch(self, session: DreamSession) -> None:
        try:
            for key in await self._keys_of(session):
                await self._drafts.touch(key)
        except (BusError, StorageUnavailable) as error:
            log.info("pictures could not be touched", session=session.id, reason=str(error))
        except Exception:  # the pictures of others are not to be lost over one log that cannot be read
            log.exception("the pictures of a session are not known", session=session.id)

    async def _keys_of(self, session: DreamSession) -> frozenset[str]:
        if session.id in self._keys:
            return self._keys[session.id]
        keys = frozenset((await self._hosting.search_of(session)).keys())
        if session.state.over:
            self._keys[session.id] = keys
        return keys

    async def _forget_jobs(self) -> None:
        """Jobs that ended when nobody worked on their session."""
        for job in tuple(self._jobs):
            if job.session is None or not job.state.terminal or job.session in self._hosting.actors:
                continue
            session = self._sessions.get(job.session)
            if session is None or session.state.over:
                await self._drafts.forget(job.id)

    async def _round(self) -> None:
        await self.clean()
        await self._clock.sleep(ROUND_S)
