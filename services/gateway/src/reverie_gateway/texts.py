"""Small texts that clients keep under names of their own for 300 s: `PUT /storage/{key}` and `storage:put`."""

from __future__ import annotations

from typing import Final

from reverie_gateway.objects import available
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_storage.port import Name, NamedThing, Shelf, Storage, content_type_of

CONTENT_TYPE: Final = "text/plain; charset=utf-8"
#: Paths below `/storage/` that are something else.
_RESERVED: Final = frozenset({"health"})


class Texts:
    """Each owner has names of his own: what others keep under the same name is theirs, and unseen."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def put(self, key: str, payload: str, *, owner: str, loc: tuple[str, ...] = ("key",)) -> NamedThing:
        """Keep a text, in place of what the name stood for; `invalid_field`, `storage_unavailable`."""
        require_name(key, loc)
        async with available():
            return await self._storage.write(
                Name(Shelf.TEXT, owner, key), payload.encode(), content_type=CONTENT_TYPE
            )

    async def find(self, key: str, *, owner: str) -> NamedThing:
        """The text; `not_found` also where it is somebody else's or has expired."""
        async with available():
            found = await self._storage.find(Name(Shelf.TEXT, owner, key))
        if found is None:
            raise ReverieError(ErrorCode.NOT_FOUND, "there is no such object")
        return found


def require_name(key: str, loc: tuple[str, ...]) -> None:
    """`invalid_field` for a key that is another thing's."""
    if key in _RESERVED or content_type_of(key) is not None:
        fields = [FieldError(loc, "is reserved: choose another name", "choice")]
        raise ReverieError(ErrorCode.INVALID_FIELD, "key: is reserved", fields=fields)
