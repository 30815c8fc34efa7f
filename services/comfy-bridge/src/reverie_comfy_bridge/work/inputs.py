"""The pictures that a job comes with, from storage into an instance's input folder."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from reverie_comfy_bridge.instance.client import InstanceClient
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_runtime.clock import Clock
from reverie_runtime.crash_points import crash_point
from reverie_storage.port import Storage, StorageUnavailable, content_type_of, is_picture
from reverie_worker.patience import with_patience

log = structlog.get_logger(__name__)


class Inputs:
    """Brings pictures; a job without any is none of its business."""

    def __init__(self, storage: Storage, *, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock

    async def bring(self, keys: Mapping[str, str], client: InstanceClient) -> dict[str, str]:
        """The pictures' names on the instance, by what `keys` calls them.

        A storage key says its content, so the same picture lies there once.  ReverieError `file_not_found`,
        `storage_unavailable`; Unreachable.
        """
        names = {}
        for field, key in keys.items():
            content = await self._read(key, field)
            crash_point("before.comfy-upload")
            names[field] = await client.upload(key, content, content_type=content_type_of(key) or "image/png")
            crash_point("after.comfy-upload")
        return names

    async def _read(self, key: str, field: str) -> bytes:
        try:
            content = await with_patience(lambda: self._content(key), self._clock)
        except StorageUnavailable as error:
            log.error("input not read", field=field, reason=str(error))
            raise ReverieError(
                ErrorCode.STORAGE_UNAVAILABLE, f"{field}: the picture could not be read."
            ) from error
        if content is None:
            raise ReverieError(ErrorCode.FILE_NOT_FOUND, f"{field}: the picture is not there any more")
        return content

    async def _content(self, key: str) -> bytes | None:
        found = await self._storage.stat(key) if is_picture(key) else None
        if found is None:
            return None
        chunks = self._storage.read(key, start=0, stop=found.size_bytes)
        return b"".join([chunk async for chunk in chunks])
