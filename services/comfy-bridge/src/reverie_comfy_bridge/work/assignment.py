"""One claimed job while an instance has it."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec.structs import replace

from reverie_comfy_bridge.run.events import Progressed
from reverie_protocol.jobs import ComfyRun, Job, Phase, Progress
from reverie_worker.assignment import Assignment, StopReason

#: Part of the whole that running the prompt is; the rest is keeping its outputs.
EXECUTED: Final = 0.99
#: Nodes that a message or a record tells of.
MAX_NODES: Final = 200


def bounded(run: ComfyRun) -> ComfyRun:
    """The run with the nodes that were seen last, as many as a message or a record should hold."""
    return run if len(run.nodes) <= MAX_NODES else replace(run, nodes=run.nodes[-MAX_NODES:])


class PromptProgress:
    """Folds what happens to one attempt into its latest Progress; the fraction never falls."""

    def __init__(self, job_id: str, attempt: int) -> None:
        self.latest = Progress(job_id=job_id, attempt=attempt, phase=Phase.WAITING)

    def enter(self, phase: Phase) -> None:
        """A phase began."""
        self.latest = replace(self.latest, phase=phase)

    def executing(self, event: Progressed) -> None:
        """The prompt goes on."""
        self.latest = replace(
            self.latest,
            phase=Phase.EXECUTING,
            step=event.step,
            steps=event.steps,
            progress=self._at_least(event.fraction * EXECUTED),
            node=event.title,
            comfy=bounded(event.run),
        )

    def done(self) -> None:
        """Everything is kept."""
        self.latest = replace(self.latest, phase=Phase.STORING, progress=1.0)

    def _at_least(self, fraction: float) -> float:
        return round(max(self.latest.progress, min(fraction, 1.0)), 4)


class PromptAssignment(Assignment):
    """A job on an instance.  `news` is set when it is to stop, or anything else that its work waits for."""

    progress: PromptProgress

    def __init__(self, job: Job, worker: str, *, fresh: bool) -> None:
        super().__init__(job, worker)
        self.progress = PromptProgress(job.id, job.attempt)
        self.news = asyncio.Event()
        #: Claimed just now by this process, so that none of its prompts can be inside yet.
        self.fresh = fresh and job.attempt == 1
        #: The instance is not ours any more: what is inside is taken out.
        self.retired = False

    def stop(self, reason: StopReason) -> None:
        """End early; a stronger reason may follow a weaker one."""
        if self.stop_reason in (reason, StopReason.SUPERSEDED):
            return
        self.stop_reason = reason
        self.news.set()
