"""How an attempt ended, in the job's record."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from reverie_comfy_bridge.work.assignment import PromptAssignment, bounded
from reverie_jobs.transitions import cancel_finished, complete, fail, requeue
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode
from reverie_protocol.jobs import ComfyNodeError, JobError, JobMeta, Output
from reverie_worker.assignment import StopReason
from reverie_worker.delivery import Delivery

#: A job that instances lost this often while it was inside them is not tried again.
MAX_LOSSES: Final = 3
#: Errors of nodes that a record tells of.
MAX_NODE_ERRORS: Final = 50

log = structlog.get_logger(__name__)


class PromptDelivery(Delivery):
    """Ends an assignment with what became of its prompt."""

    async def complete(self, assignment: PromptAssignment, outputs: Sequence[Output], meta: JobMeta) -> str:
        """It was done; the job's state now."""
        return await self._commit(
            assignment, partial(complete, held=assignment.claim, outputs=outputs, meta=_bounded(meta))
        )

    async def cancel(
        self, assignment: PromptAssignment, outputs: Sequence[Output], meta: JobMeta | None
    ) -> str:
        """It was stopped, as was asked."""
        return await self._commit(
            assignment, partial(cancel_finished, held=assignment.claim, outputs=outputs, meta=_bounded(meta))
        )

    async def fail(
        self,
        assignment: PromptAssignment,
        code: ErrorCode,
        message: str,
        *,
        node_errors: Sequence[ComfyNodeError] = (),
        outputs: Sequence[Output] = (),
        meta: JobMeta | None = None,
    ) -> str:
        """It failed, with its reason by node, and what was made before."""
        error = JobError(code, message, ERROR_TRAITS[code].retryable)
        if node_errors:
            error = replace(error, node_errors=tuple(node_errors[:MAX_NODE_ERRORS]))
        change = partial(fail, held=assignment.claim, error=error, outputs=outputs, meta=_bounded(meta))
        return await self._commit(assignment, change)

    async def give_back(self, assignment: PromptAssignment) -> str:
        """Queue it again: nothing is wrong with it, and its prompt may even go on."""
        if assignment.stop_reason is StopReason.SUPERSEDED:
            return StopReason.SUPERSEDED
        return await self._give_back(assignment)

    async def lose(self, assignment: PromptAssignment, reason: str) -> str:
        """The instance lost its prompt: queue it again, or fail it once that has happened too often."""
        if assignment.stop_reason is StopReason.CANCELLED:
            return await self.cancel(assignment, (), None)
        if assignment.job.losses + 1 >= MAX_LOSSES:
            message = f"ComfyUI lost this job {MAX_LOSSES} times; it is not tried again. {reason}"
            return await self.fail(assignment, ErrorCode.WORKFLOW_FAILED, message.strip())
        log.warning("prompt lost, job requeued", reason=reason, losses=assignment.job.losses + 1)
        change = partial(requeue, held=assignment.claim, crashed=False, lost=True)
        return await self._commit(assignment, change)


def _bounded(meta: JobMeta | None) -> JobMeta | None:
    return meta if meta is None or meta.comfy is None else replace(meta, comfy=bounded(meta.comfy))
