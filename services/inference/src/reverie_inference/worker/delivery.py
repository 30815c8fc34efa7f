"""What a job gives goes to storage, then into its record; neither is given up while the job is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from PIL import Image

from reverie_inference.engine.events import Failed, Switched
from reverie_inference.engine.picture import EncodedPicture, encode_picture, generation_parameters
from reverie_inference.worker.assignment import Assignment, Outcome, StopReason
from reverie_inference.worker.standing import BACKEND
from reverie_jobs.store import JobStore
from reverie_jobs.transitions import Refused, Superseded, cancel_finished, complete, fail, requeue
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode, ReverieError
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobError,
    JobMeta,
    Output,
    Phase,
    SuperResolutionParams,
)
from reverie_runtime.bus.port import BusError
from reverie_runtime.clock import Clock
from reverie_runtime.crash_points import crash_point
from reverie_storage.port import Storage, StorageUnavailable, url_of

RETRY_S: Final = 0.25
#: How long a full or missing disk is waited for before the job fails, in seconds.
STORAGE_PATIENCE_S: Final = 15.0

log = structlog.get_logger(__name__)


class Delivery:
    """Ends an assignment: one terminal write (or a requeue), and only if the job is still ours."""

    def __init__(
        self, store: JobStore, storage: Storage, *, clock: Clock, metadata: bool, version: str
    ) -> None:
        self._store = store
        self._storage = storage
        self._clock = clock
        self._metadata = metadata
        self._version = version

    async def deliver(self, assignment: Assignment, outcome: Outcome | None) -> str:
        """Write what the outcome means; the job's state now, or `superseded` where it is no longer ours."""
        if assignment.stop_reason is StopReason.SUPERSEDED:
            return StopReason.SUPERSEDED
        if assignment.stop_reason is StopReason.DRAINED or outcome is None:
            crashed = assignment.stop_reason is StopReason.LOST
            return await self._commit(assignment, partial(requeue, held=assignment.claim, crashed=crashed))
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

    async def give_up(self, assignment: Assignment) -> str:
        """Fail a job over a fault of ours, so that no record says for ever that it runs; its state then."""
        return await self._fail(assignment, ErrorCode.INTERNAL, "The worker failed; its log has the details.")

    async def _fail(self, assignment: Assignment, code: ErrorCode, message: str) -> str:
        error = JobError(code, message, ERROR_TRAITS[code].retryable)
        return await self._commit(assignment, partial(fail, held=assignment.claim, error=error))

    async def _store_picture(
        self, assignment: Assignment, picture: Image.Image, meta: JobMeta, is_partial: bool
    ) -> Output:
        encoded = await asyncio.to_thread(self._encode, assignment.job, picture, meta, is_partial)
        crash_point("before.output")
        key = await self._put(encoded)
        crash_point("after.output")
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

    async def _put(self, encoded: EncodedPicture) -> str:
        """Store, waiting a while for a store that is away; StorageUnavailable in the end."""
        give_up_at = self._clock.monotonic() + STORAGE_PATIENCE_S
        while True:
            try:
                return await self._storage.put(encoded.content, content_type=encoded.content_type)
            except StorageUnavailable:
                if self._clock.monotonic() >= give_up_at:
                    raise
                await self._clock.sleep(RETRY_S)

    async def _commit(self, assignment: Assignment, change: Callable[..., Job]) -> str:
        """Apply a transition until the bus has taken it; the job's state then."""
        while True:
            try:
                stored = await self._store.apply(
                    assignment.job.id, lambda job: change(job, now=self._clock.time())
                )
            except (Superseded, Refused, ReverieError):
                # Requeued, expired or purged meanwhile: what we made is not wanted any more.
                log.info("result dropped, the job is no longer ours", job_id=assignment.job.id)
                return StopReason.SUPERSEDED
            except BusError as error:
                log.warning("result waits for the bus", job_id=assignment.job.id, reason=str(error))
                await self._clock.sleep(RETRY_S)
            else:
                return stored.job.state
