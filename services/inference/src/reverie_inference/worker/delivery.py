"""What the engine made, as a picture in storage and in the job's record."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog
from PIL import Image

from reverie_inference.engine.events import Failed, Switched
from reverie_inference.engine.picture import EncodedPicture, encode_picture, generation_parameters
from reverie_inference.worker.assignment import EngineAssignment, Outcome
from reverie_inference.worker.standing import BACKEND
from reverie_jobs.store import JobStore
from reverie_jobs.transitions import cancel_finished, complete
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobMeta,
    Output,
    Phase,
    SuperResolutionParams,
)
from reverie_runtime.clock import Clock
from reverie_storage.port import Storage, StorageUnavailable, url_of
from reverie_worker.assignment import StopReason
from reverie_worker.delivery import Delivery

log = structlog.get_logger(__name__)


class PictureDelivery(Delivery):
    """Ends an assignment with what the engine made of it."""

    def __init__(
        self, store: JobStore, storage: Storage, *, clock: Clock, metadata: bool, version: str
    ) -> None:
        super().__init__(store, storage, clock=clock)
        self._metadata = metadata
        self._version = version

    async def deliver(self, assignment: EngineAssignment, outcome: Outcome | None) -> str:
        """Write what the outcome means; the job's state now, or `superseded` where it is no longer ours."""
        if assignment.stop_reason is StopReason.SUPERSEDED:
            return StopReason.SUPERSEDED
        if assignment.stop_reason is StopReason.DRAINED or outcome is None:
            return await self._give_back(assignment)
        if isinstance(outcome, Failed):
            return await self._fail(assignment, outcome.code, outcome.message)
        if isinstance(outcome, Switched):
            meta = JobMeta(seed=0, backend=BACKEND, mode=outcome.mode)
            return await self._commit(
                assignment, partial(complete, held=assignment.claim, outputs=(), meta=meta)
            )
        assignment.progress.enter(Phase.STORING)
        assignment.changed.set()
        cancelled = assignment.stop_reason is StopReason.CANCELLED
        outputs: tuple[Output, ...] = ()
        if outcome.picture is not None:
            try:
                outputs = (await self._store_picture(assignment, outcome.picture, outcome.meta, cancelled),)
            except StorageUnavailable as error:
                log.error("output not stored", job_id=assignment.job.id, reason=str(error))
                return await self._fail(
                    assignment, ErrorCode.STORAGE_UNAVAILABLE, "The picture could not be stored."
                )
        finish = cancel_finished if cancelled else complete
        return await self._commit(
            assignment, partial(finish, held=assignment.claim, outputs=outputs, meta=outcome.meta)
        )

    async def _store_picture(
        self, assignment: EngineAssignment, picture: Image.Image, meta: JobMeta, is_partial: bool
    ) -> Output:
        encoded = await asyncio.to_thread(self._encode, assignment.job, picture, meta, is_partial)
        key = await self._put(encoded.content, content_type=encoded.content_type)
        return Output(
            url=url_of(key),
            key=key,
            content_type=encoded.content_type,
            width=encoded.width,
            height=encoded.height,
            bytes=len(encoded.content),
            partial=is_partial,
        )

    def _encode(self, job: Job, picture: Image.Image, meta: JobMeta, is_partial: bool) -> EncodedPicture:
        params = job.params
        if isinstance(params, SuperResolutionParams):
            return encode_picture(picture, picture_format=params.out_format, quality=params.quality)
        assert isinstance(params, GenerateParams)
        parameters = ""
        if self._metadata:
            parameters = generation_parameters(
                params.prompt, params.negative_prompt, meta, version=self._version, partial=is_partial
            )
        return encode_picture(
            picture,
            picture_format=params.superres_format if params.superres else "png",
            quality=params.superres_quality,
            parameters=parameters,
        )
