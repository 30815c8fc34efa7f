"""Small texts that clients keep under names of their own for 300 s: `PUT /storage/{key}` and `storage:put`."""

from __future__ import annotations

import asyncio
from typing import Final

from reverie_gateway.objects import available
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_storage.port import Name, NamedThing, Shelf, Storage, content_type_of

CONTENT_TYPE: Final = "text/plain; charset=utf-8"
#: What one gateway keeps for one owner at once, in bytes; a small text takes a block of the disk.
MAX_OWNER_BYTES: Final = 256 << 20
MIN_COUNTED_BYTES: Final = 4096
_RETRY_S: Final = 30.0
#: Paths below `/storage/` that are something else.
_RESERVED: Final = frozenset({"health"})


class Texts:
    """Each owner has names of his own: what others keep under the same name is theirs, and unseen."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        #: Until when a name counts, and for how many bytes; the oldest is first.
        self._kept: dict[tuple[str, str], tuple[float, int]] = {}
        self._kept_bytes: dict[str, int] = {}

    async def put(self, key: str, payload: str, *, owner: str, loc: tuple[str, ...] = ("key",)) -> NamedThing:
        """Keep a text, in place of what the name stood for.

        `invalid_field`, `storage_unavailable`; `rate_limited` where the owner has too much here already.
        """
        require_name(key, loc)
        content = payload.encode()
        self._count(owner, key, len(content))
        async with available():
            return await self._storage.write(Name(Shelf.TEXT, owner, key), content, content_type=CONTENT_TYPE)

    async def find(self, key: str, *, owner: str) -> NamedThing:
        """The text; `not_found` also where it is somebody else's or has expired."""
        async with available():
            found = await self._storage.find(Name(Shelf.TEXT, owner, key))
        if found is None:
            raise ReverieError(ErrorCode.NOT_FOUND, "there is no such object")
        return found

    def _count(self, owner: str, key: str, size: int) -> None:
        """Count a text for as long as it is kept, also one whose writing fails."""
        now = asyncio.get_running_loop().time()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._discount(next(iter(self._kept)))
        size_bytes = max(size, MIN_COUNTED_BYTES)
        _, earlier = self._kept.get((owner, key), (0.0, 0))
        if self._kept_bytes.get(owner, 0) - earlier + size_bytes > MAX_OWNER_BYTES:
            limit = f"at most {MAX_OWNER_BYTES >> 20} MiB of texts are kept for one owner at once"
            raise ReverieError(ErrorCode.RATE_LIMITED, limit, retry_after=_RETRY_S)
        self._discount((owner, key))
        self._kept[owner, key] = (now + Shelf.TEXT.ttl_s, size_bytes)
        self._kept_bytes[owner] = self._kept_bytes.get(owner, 0) + size_bytes

    def _discount(self, name: tuple[str, str]) -> None:
        _, size_bytes = self._kept.pop(name, (0.0, 0))
        left = self._kept_bytes.pop(name[0], 0) - size_bytes
        if left > 0:
            self._kept_bytes[name[0]] = left


def require_name(key: str, loc: tuple[str, ...]) -> None:
    """`invalid_field` for a key that is another thing's."""
    if key in _RESERVED or content_type_of(key) is not None:
        fields = [FieldError(loc, "is reserved: choose another name", "choice")]
        raise ReverieError(ErrorCode.INVALID_FIELD, "key: is reserved", fields=fields)
