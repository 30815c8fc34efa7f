"""Small WebP pictures of stored ones, made when somebody asks and kept in the store."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from reverie_gateway.objects import available
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_storage.pictures import THUMBNAIL_SIDES, PictureRefused, Pictures, local_file
from reverie_storage.port import Name, Shelf, Storage, StorageUnavailable, StoredObject, is_picture

MEDIA_TYPE: Final = "image/webp"

log = structlog.get_logger(__name__)


class Thumbnails:
    """Makes each thumbnail once, however many ask for it at the same time."""

    def __init__(self, storage: Storage, pictures: Pictures) -> None:
        self._storage = storage
        self._pictures = pictures
        self._making: dict[Name, asyncio.Task[bytes]] = {}

    async def of(self, found: StoredObject, side: int) -> bytes:
        """A WebP whose longer side has at most `side` pixels.

        `invalid_field` for what is no picture, PictureRefused for one that cannot be decoded within the limits.
        """
        if not is_picture(found.key):
            raise _wrong("only pictures have thumbnails")
        name = Name(Shelf.THUMBNAIL, "", f"{found.key} {side}")
        async with available():
            kept = await self._storage.find(name)
        if kept is not None:
            return kept.content
        making = self._making.get(name)
        if making is None:
            making = asyncio.create_task(self._make(found, side, name), name="thumbnail")
            self._making[name] = making
            making.add_done_callback(lambda done: self._forget(name, done))
        return await asyncio.shield(making)

    async def close(self) -> None:
        """Give up what is being made; idempotent."""
        making = tuple(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    async def _make(self, found: StoredObject, side: int, name: Name) -> bytes:
        async with available(), local_file(self._storage, found) as path:
            content = await self._pictures.thumbnail(path, side=side)
        try:
            await self._storage.write(name, content, content_type=MEDIA_TYPE)
        except StorageUnavailable as error:
            log.info("a thumbnail was not kept", reason=str(error))
        return content

    def _forget(self, name: Name, done: asyncio.Task[bytes]) -> None:
        self._making.pop(name, None)
        if not done.cancelled():
            done.exception()  # whoever asked has it; nobody may be left to retrieve it


def requested_side(text: str | None) -> int | None:
    """The side that `?thumbnail=` asks for, None for the picture itself; `invalid_field` for another size."""
    if text is None:
        return None
    if text not in map(str, THUMBNAIL_SIDES):
        raise _wrong(f"must be one of {', '.join(map(str, THUMBNAIL_SIDES))}")
    return int(text)


def refused_thumbnail(error: PictureRefused) -> ReverieError:
    """A stored picture that no thumbnail can be made of: the address is wrong, not the request's body."""
    return _wrong(error.message)


def thumbnail_of_text() -> ReverieError:
    """What lies under the name is a text."""
    return _wrong("is for pictures, and this is a text")


def _wrong(msg: str) -> ReverieError:
    field = FieldError(("query", "thumbnail"), msg, "choice")
    return ReverieError(ErrorCode.INVALID_FIELD, f"thumbnail: {msg}", fields=[field])
