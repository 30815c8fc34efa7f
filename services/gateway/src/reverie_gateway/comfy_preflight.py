"""Asks the ComfyUI bridge whether a job could run, before there is a record of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import msgspec

from reverie_jobs.mirror import Change, WorkerMirror
from reverie_protocol.comfy import ComfyCheck, ComfyVerdict, ComfyWorkflows
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import ComfyParams, JobType, Worker
from reverie_protocol.subjects import COMFY_CHECK, COMFY_WORKFLOWS
from reverie_runtime.bus.port import Bus, BusError
from reverie_runtime.clock import Clock

#: How long an answer is sought, in seconds: a bridge that restarts is back within that.
PATIENCE_S: Final = 5.0
#: Longest wait for one answer, and pause before the next question, in seconds.
ANSWER_S: Final = 2.0
PAUSE_S: Final = 0.1
RETRY_S: Final = 2.0

Answer = TypeVar("Answer", bound=msgspec.Struct)


class Preflight:
    """Questions to whichever bridge answers first.

    While nobody does ComfyUI jobs, nor has since this gateway began, a bridge that is silent is none.
    """

    def __init__(self, bus: Bus, workers: WorkerMirror, *, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._known = any(JobType.COMFY in worker.job_types for worker in workers)
        workers.listen(self._on_worker)

    def _on_worker(self, change: Change[Worker]) -> None:
        self._known = self._known or (change.record is not None and JobType.COMFY in change.record.job_types)

    async def require_runnable(self, params: ComfyParams, *, may_send_graphs: bool) -> None:
        """Return if some instance could run this now; else the bridge's refusal, or `comfy_unreachable`."""
        question = msgspec.json.encode(ComfyCheck(params=params, may_send_graphs=may_send_graphs))
        verdict = await self._asked(
            COMFY_CHECK, question, ComfyVerdict, final=lambda each: each.code != ErrorCode.COMFY_UNREACHABLE
        )
        if verdict.code:
            raise _refusal(verdict)

    async def workflows(self) -> ComfyWorkflows:
        """The workflows there are; `comfy_unreachable` without a bridge."""
        return await self._asked(COMFY_WORKFLOWS, b"", ComfyWorkflows, final=lambda _: True)

    async def _asked(
        self, subject: str, question: bytes, answer: type[Answer], *, final: Callable[[Answer], bool]
    ) -> Answer:
        """The first final answer, or the last other one, within `PATIENCE_S`."""
        last: Answer | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                last = await self._asked_once(subject, question, answer)
                while self._known and (last is None or not final(last)):
                    await self._clock.sleep(PAUSE_S)
                    last = await self._asked_once(subject, question, answer) or last
        if last is None:
            raise ReverieError(
                ErrorCode.COMFY_UNREACHABLE, "the ComfyUI bridge does not answer", retry_after=RETRY_S
            )
        return last

    async def _asked_once(self, subject: str, question: bytes, answer: type[Answer]) -> Answer | None:
        """One answer; None where there was none that could be read."""
        try:
            reply = await self._bus.request(subject, question, timeout=ANSWER_S)
            return msgspec.json.decode(reply.data, type=answer)
        except (BusError, msgspec.MsgspecError):
            return None


def _refusal(verdict: ComfyVerdict) -> ReverieError:
    """A bridge's refusal; a code that this gateway does not know is `workflow_invalid`."""
    known = verdict.code in ErrorCode.__members__.values()
    code = ErrorCode(verdict.code) if known else ErrorCode.WORKFLOW_INVALID
    return ReverieError(
        code,
        verdict.message,
        fields=verdict.fields,
        node_errors=verdict.node_errors,
        retry_after=RETRY_S if code is ErrorCode.COMFY_UNREACHABLE else None,
    )
