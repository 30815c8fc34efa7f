"""What the gateway does with the store, put together."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from reverie_gateway.objects import Objects
from reverie_gateway.sweeper import LEASES, Sweeper
from reverie_gateway.texts import Texts
from reverie_gateway.thumbnails import Thumbnails
from reverie_gateway.uses import Uses
from reverie_jobs.mirror import JobMirror
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock
from reverie_storage.pictures import Pictures
from reverie_storage.port import Storage
from reverie_storage.settings import GIB, StorageSettings, limits_of
from reverie_storage.uploads import Uploads


class Stores(msgspec.Struct, frozen=True):
    """One store, by what is kept in it."""

    objects: Objects
    texts: Texts
    thumbnails: Thumbnails
    uploads: Uploads


@asynccontextmanager
async def kept(
    storage: Storage, settings: StorageSettings, jobs: JobMirror, *, bus: Bus, clock: Clock
) -> AsyncIterator[Stores]:
    """Serve and sweep the store while the context is open."""
    pictures = Pictures(limits_of(settings))
    thumbnails, uses = Thumbnails(storage, pictures), Uses(storage, clock=clock)
    leases = await bus.bucket(LEASES)
    sweeper = Sweeper(storage, jobs, leases, clock=clock, quota_bytes=int(settings.quota_gb * GIB))
    async with sweeper.run():
        try:
            yield Stores(
                objects=Objects(storage, uses=uses),
                texts=Texts(storage),
                thumbnails=thumbnails,
                uploads=Uploads(storage, pictures, new_reference=lambda: secrets.token_hex(16)),
            )
        finally:
            await thumbnails.close()
            await uses.close()
