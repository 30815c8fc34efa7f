"""Keeps the store from growing for ever: expired texts, uploads and thumbnails, and pictures beyond the quota.

Of several gateways one sweeps in each round, by a lease in a bucket whose entries expire.  Two that did so at once
would do no harm.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from reverie_gateway.inputs import file_references
from reverie_jobs.mirror import JobMirror
from reverie_protocol.subjects import LEASES_BUCKET
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bucket, BucketConfig, RevisionConflict
from reverie_runtime.clock import Clock
from reverie_storage.port import Storage, StorageUnavailable
from reverie_storage.sweeping import Swept, sweep

ROUND_S: Final = 60.0
#: Of so many rounds one goes through the whole store: a list of a large one takes its time, and costs money on S3.
WHOLE_EVERY: Final = 10
LEASES: Final = BucketConfig(name=LEASES_BUCKET, history=1, ttl_s=ROUND_S - 5.0)
LEASE_KEY: Final = "storage-sweep"

log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps the store while a complete mirror says what jobs refer to."""

    def __init__(
        self, storage: Storage, jobs: JobMirror, leases: Bucket, *, clock: Clock, quota_bytes: int
    ) -> None:
        self._storage = storage
        self._jobs = jobs
        self._leases = leases
        self._clock = clock
        self._quota_bytes = quota_bytes
        self._pause_s = 0.0
        self._rounds = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Sweep at once and then every `ROUND_S` while the context is open."""
        async with acting(self._round, name="sweeper", clock=self._clock):
            yield

    async def sweep(self, *, whole: bool = True) -> Swept | None:
        """One sweep, of the whole store or of what expires by itself.

        None where it is not known for certain what jobs refer to.
        """
        if not self._jobs.ready.is_set() or self._jobs.unreadable:
            return None
        return await sweep(
            self._storage,
            referred=self._referred,
            now=self._clock.time(),
            quota_bytes=self._quota_bytes,
            whole=whole,
        )

    def _referred(self) -> set[str]:
        """Keys of all pictures that a job record names."""
        outputs = {output.key for job in self._jobs for output in job.outputs}
        return outputs | {key for job in self._jobs for key in file_references(job.params).values()}

    async def _round(self) -> None:
        await self._clock.sleep(self._pause_s)
        self._pause_s = ROUND_S
        try:
            # Also a proof that the bus answers, so that the mirror is not that of another time.
            await self._leases.create(LEASE_KEY, b"")
        except RevisionConflict:
            return
        try:
            swept = await self.sweep(whole=self._rounds % WHOLE_EVERY == 0)
            self._rounds += 1
        except StorageUnavailable as error:
            log.info("sweeping waits for the store", reason=str(error))
            return
        if swept is not None and (swept.expired or swept.evicted):
            log.info("store swept", expired=swept.expired, evicted=swept.evicted)
        if swept is not None and swept.left:
            log.warning("part of the store could not be removed", left=swept.left, reason=swept.reason)
        if swept is not None and swept.over_bytes:
            log.warning("the store is beyond its quota with what jobs refer to", over_bytes=swept.over_bytes)
