"""The pictures that a job comes with, from storage and decoded, before the engine sees the job."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from PIL import Image

from reverie_inference.engine.pictures import NO_PICTURES, Pictures
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, JobParams, SuperResolutionParams
from reverie_runtime.clock import Clock
from reverie_storage.pictures import Limits, read_picture
from reverie_storage.port import Storage, StorageUnavailable

RETRY_S: Final = 0.25
#: How long a store that is away is waited for before the job fails, in seconds.
STORAGE_PATIENCE_S: Final = 15.0

log = structlog.get_logger(__name__)


class Inputs:
    """Reads pictures; a job without any is none of its business."""

    def __init__(self, storage: Storage, limits: Limits, *, clock: Clock) -> None:
        self._storage = storage
        self._limits = limits
        self._clock = clock

    async def read(self, params: JobParams) -> Pictures:
        """The job's pictures.

        ReverieError that names the field: `file_not_found`, what `PictureRefused` says, `storage_unavailable`.
        """
        if isinstance(params, SuperResolutionParams):
            return Pictures(init=await self._image(params.fileRef, "fileRef"))
        if not isinstance(params, GenerateParams) or params.initImage is None:
            return NO_PICTURES
        init = await self._image(params.initImage, "initImage")
        if params.maskImage is None:
            return Pictures(init)
        return Pictures(init, await self._image(params.maskImage, "maskImage"))

    async def _image(self, key: str, field: str) -> Image.Image:
        give_up_at = self._clock.monotonic() + STORAGE_PATIENCE_S
        while True:
            try:
                picture = await read_picture(self._storage, key, limits=self._limits)
            except ReverieError as error:
                raise ReverieError(error.code, f"{field}: {error.message}") from error
            except StorageUnavailable as error:
                if self._clock.monotonic() >= give_up_at:
                    log.error("input not read", field=field, reason=str(error))
                    raise ReverieError(
                        ErrorCode.STORAGE_UNAVAILABLE, f"{field}: the picture could not be read."
                    ) from error
                await self._clock.sleep(RETRY_S)
            else:
                size = (picture.width, picture.height)
                return await asyncio.to_thread(Image.frombytes, picture.mode, size, picture.pixels)
