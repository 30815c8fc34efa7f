"""Pictures that clients send: checked, stored under their content, and referred to for a while.

The record of a job holds the storage key in place of the reference (`README.md`), so a picture outlives its
reference where a job needs it.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_storage.pictures import Pictures
from reverie_storage.port import Name, NamedThing, Shelf, Storage, content_type_of, is_picture

PREFIX: Final = "fileRef:"
_REFERENCE: Final = re.compile(r"[0-9a-f]{32}")


class UploadRecord(msgspec.Struct, frozen=True):
    """What a reference stands for: the picture's storage key, its size in pixels (0 where it is not known).

    `reference` and `expires_at` are empty and None where the client named the storage key itself.
    """

    key: str
    content_type: str
    width: int = 0
    height: int = 0
    reference: str = ""
    expires_at: float | None = None


class Uploads:
    """Uploads of all owners; `new_reference` makes 32 hexadecimal digits that nobody can guess."""

    def __init__(self, storage: Storage, pictures: Pictures, *, new_reference: Callable[[], str]) -> None:
        self._storage = storage
        self._pictures = pictures
        self._new_reference = new_reference

    async def keep(self, path: Path, *, owner: str) -> UploadRecord:
        """Check a file (it may be cut to its picture), store it, and give it a reference.

        PictureRefused says why it is not taken; StorageUnavailable.
        """
        found = await self._pictures.inspect(path)
        await asyncio.to_thread(os.truncate, path, found.length)
        key = await self._storage.put_file(path, content_type=found.type)
        record = UploadRecord(key, found.type, found.width, found.height, self._new_reference())
        thing = await self._storage.write(
            _name(record.reference, owner), msgspec.json.encode(record), content_type="application/json"
        )
        return msgspec.structs.replace(record, expires_at=thing.expires_at)

    async def keep_mask(self, path: Path, *, owner: str, of: Literal["transparent", "black"]) -> UploadRecord:
        """The same for a mask whose transparent, or black, parts are what is drawn anew: ours are white there."""
        await self._pictures.inspect(path)
        with tempfile.TemporaryDirectory(prefix="reverie-") as folder:
            mask = Path(folder) / "mask"
            await self._pictures.mask(path, mask, of=of)
            return await self.keep(mask, owner=owner)

    async def resolve(self, reference: str, *, owner: str) -> UploadRecord:
        """What a reference (or the key of a stored picture) stands for, and keep that from being swept now.

        ReverieError `file_not_found` if it is unknown, expired or somebody else's; StorageUnavailable.
        """
        given = reference.removeprefix(PREFIX)
        if is_picture(given):
            record: UploadRecord | None = UploadRecord(given, content_type_of(given) or "")
        else:
            thing = None
            if _REFERENCE.fullmatch(given):
                thing = await self._storage.find(_name(given, owner))
            record = None if thing is None else read_record(thing)
        # A use just now keeps a sweeper away until every gateway has seen the job that needs the picture.
        if record is None or not await self._storage.touch(record.key):
            raise ReverieError(ErrorCode.FILE_NOT_FOUND, "there is no such upload, or it has expired")
        return record


def read_record(thing: NamedThing) -> UploadRecord | None:
    """The record in a thing of the shelf `upload`; None if it holds none."""
    try:
        record = msgspec.json.decode(thing.content, type=UploadRecord)
    except msgspec.MsgspecError:
        return None
    return msgspec.structs.replace(record, expires_at=thing.expires_at)


def _name(reference: str, owner: str) -> Name:
    return Name(Shelf.UPLOAD, owner, reference)
