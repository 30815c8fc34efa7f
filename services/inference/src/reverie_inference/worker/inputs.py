"""The pictures that a job comes with, from storage and decoded, before the engine sees the job."""

from __future__ import annotations

import asyncio

import structlog
from PIL import Image

from reverie_inference.engine.pictures import NO_PICTURES, Pictures
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, JobParams, SuperResolutionParams
from reverie_runtime.clock import Clock
from reverie_storage.pictures import Limits, read_picture
from reverie_storage.port import Storage, StorageUnavailable
from reverie_worker.patience import with_patience

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
        try:
            picture = await with_patience(
                lambda: read_picture(self._storage, key, limits=self._limits), self._clock
            )
        except ReverieError as error:
            raise ReverieError(error.code, f"{field}: {error.message}") from error
        except StorageUnavailable as error:
            log.error("input not read", field=field, reason=str(error))
            raise ReverieError(
                ErrorCode.STORAGE_UNAVAILABLE, f"{field}: the picture could not be read."
            ) from error
        size = (picture.width, picture.height)
        return await asyncio.to_thread(Image.frombytes, picture.mode, size, picture.pixels)
