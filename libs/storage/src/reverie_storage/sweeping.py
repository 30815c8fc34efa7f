"""What is removed from a store, and when: nothing that is referred to, nothing that was used a short while ago.

A sweep can be broken off anywhere and done by several at once: all it does is delete what nobody names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from reverie_storage.port import TTL_S, Place, Shelf, Storage, StoredObject
from reverie_storage.uploads import read_record

#: What was used within this time is left alone, in seconds: the job that needs it may not be seen everywhere yet.
GRACE_S: Final = 600.0
#: Age at which what a crashed writer left is taken away, in seconds.
LEFTOVER_S: Final = 3600.0


class Swept(msgspec.Struct, frozen=True):
    """What a sweep did: things and objects removed, and what the objects take in bytes, as far as it counted."""

    expired: int = 0
    evicted: int = 0
    used_bytes: int | None = None
    over_bytes: int = 0


async def sweep(
    storage: Storage,
    *,
    referred: Callable[[], Collection[str]],
    now: float,
    quota_bytes: int = 0,
    whole: bool = True,
) -> Swept:
    """Remove what has expired; beyond the quota (0 is none) also what nobody refers to, least recently used first.

    `referred` tells the keys that job records name.  Without `whole` only named things are looked at: they are few.
    StorageUnavailable ends the sweep.
    """
    if whole:
        await storage.tidy(before=now - LEFTOVER_S)
    expired = 0
    for shelf in (Shelf.TEXT, Shelf.THUMBNAIL):
        expired += await _clear_expired(storage, shelf, now)
    uploads = await _Uploads.of(storage, now)
    expired += await uploads.clear(storage, referred())
    if not (quota_bytes and whole):
        return Swept(expired)
    return await _keep_quota(storage, {*referred(), *uploads.living}, now, quota_bytes, expired)


async def _clear_expired(storage: Storage, shelf: Shelf, now: float) -> int:
    before = now - TTL_S[shelf]
    expired = [place async for place in storage.places(shelf) if place.created_at < before]
    return sum([await storage.clear(place, unless_used_since=before) for place in expired])


class _Uploads:
    """References that still hold, and the expired ones with what they refer to."""

    def __init__(self, now: float) -> None:
        self.living: set[str] = set()
        self._expired: list[tuple[Place, str]] = []
        self._now = now

    @classmethod
    async def of(cls, storage: Storage, now: float) -> _Uploads:
        """Read them all."""
        uploads = cls(now)
        async for place in storage.places(Shelf.UPLOAD):
            thing = await storage.open_place(place)
            record = read_record(thing) if thing is not None else None
            if thing is not None and thing.expires_at > now:
                uploads.living.update([record.key] if record else [])
            elif place.created_at < now - TTL_S[Shelf.UPLOAD]:
                uploads._expired.append((place, record.key if record else ""))
        return uploads

    async def clear(self, storage: Storage, referred: Collection[str]) -> int:
        """Forget expired references, and the pictures that were only there for them; how many references."""
        cleared = 0
        for place, key in self._expired:
            needed = not key or key in referred or key in self.living
            # The picture first: with its reference gone, only the quota would find it.
            if needed or await storage.delete(key, unless_used_since=self._now - GRACE_S):
                await storage.clear(place)
                cleared += 1
        return cleared


async def _keep_quota(
    storage: Storage, kept: Collection[str], now: float, quota_bytes: int, expired: int
) -> Swept:
    used_bytes, candidates = 0, list[StoredObject]()
    async for found in storage.objects():
        used_bytes += found.size_bytes
        if found.key not in kept and found.used_at < now - GRACE_S:
            candidates.append(found)
    evicted = 0
    for found in sorted(candidates, key=lambda found: found.used_at):
        if used_bytes <= quota_bytes:
            break
        if await storage.delete(found.key, unless_used_since=now - GRACE_S):
            used_bytes -= found.size_bytes
            evicted += 1
    return Swept(expired, evicted, used_bytes, max(0, used_bytes - quota_bytes))
