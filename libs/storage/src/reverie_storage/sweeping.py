"""What is removed from a store, and when: nothing that is referred to, nothing that was used a short while ago.

A sweep can be broken off anywhere and done by several at once: all it does is delete what nobody names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec
from msgspec.structs import replace

from reverie_storage.port import TTL_S, Place, Shelf, Storage, StorageUnavailable, StoredObject
from reverie_storage.uploads import read_record

#: What was used within this time is left alone, in seconds: the job that needs it may not be seen everywhere yet.
GRACE_S: Final = 600.0
#: Age at which what a crashed writer left is taken away, in seconds.
LEFTOVER_S: Final = 3600.0


#: After so many that could not be removed, one after the other, the store is taken to be away.
MOST_LEFT_IN_A_ROW: Final = 10


class Swept(msgspec.Struct, frozen=True):
    """What a sweep did: things and objects removed, and what the objects take in bytes, as far as it counted.

    `left` could not be removed, the last of them for this `reason`; another sweep tries again.
    """

    expired: int = 0
    evicted: int = 0
    used_bytes: int | None = None
    over_bytes: int = 0
    left: int = 0
    reason: str = ""


class _Broom:
    """Removes one thing after the other.  What cannot be removed does not keep the others."""

    def __init__(self) -> None:
        self.left = 0
        self.reason = ""
        self._in_a_row = 0

    async def remove(self, removing: Awaitable[bool]) -> bool:
        """Whether it is gone; StorageUnavailable when nothing can be removed any more."""
        try:
            gone = await removing
        except StorageUnavailable as error:
            self.left += 1
            self.reason = str(error)
            self._in_a_row += 1
            if self._in_a_row >= MOST_LEFT_IN_A_ROW:
                raise
            return False
        self._in_a_row = 0
        return gone


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
    StorageUnavailable for a store that is away, or cannot tell what it holds: nothing is removed on a guess.
    """
    broom = _Broom()
    if whole:
        await broom.remove(_tidied(storage, before=now - LEFTOVER_S))
    expired = 0
    for shelf in (Shelf.TEXT, Shelf.THUMBNAIL):
        expired += await _clear_expired(storage, shelf, now, broom)
    uploads = await _Uploads.of(storage, now)
    expired += await uploads.clear(storage, referred(), broom)
    swept = Swept(expired)
    if quota_bytes and whole:
        kept = {*referred(), *uploads.living}
        swept = await _keep_quota(storage, kept, broom, now=now, quota_bytes=quota_bytes, expired=expired)
    return replace(swept, left=broom.left, reason=broom.reason)


async def _tidied(storage: Storage, *, before: float) -> bool:
    await storage.tidy(before=before)
    return True


async def _clear_expired(storage: Storage, shelf: Shelf, now: float, broom: _Broom) -> int:
    before = now - TTL_S[shelf]
    expired = [place async for place in storage.places(shelf) if place.created_at < before]
    return sum([await broom.remove(storage.clear(place, unless_used_since=before)) for place in expired])


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

    async def clear(self, storage: Storage, referred: Collection[str], broom: _Broom) -> int:
        """Forget expired references, and the pictures that were only there for them; how many references."""
        cleared = 0
        for place, key in self._expired:
            needed = not key or key in referred or key in self.living
            # The picture first: with its reference gone, only the quota would find it.
            if needed or await broom.remove(storage.delete(key, unless_used_since=self._now - GRACE_S)):
                cleared += await broom.remove(storage.clear(place))
        return cleared


async def _keep_quota(
    storage: Storage, kept: Collection[str], broom: _Broom, *, now: float, quota_bytes: int, expired: int
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
        if await broom.remove(storage.delete(found.key, unless_used_since=now - GRACE_S)):
            used_bytes -= found.size_bytes
            evicted += 1
    return Swept(expired, evicted, used_bytes, max(0, used_bytes - quota_bytes))
