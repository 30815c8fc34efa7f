"""One job as its events tell it; pure."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from reverie_protocol.jobs import JobError, JobMeta, JobState, Output, Phase
from reverie_protocol.server_messages import (
    JobAck,
    JobComplete,
    JobFailed,
    JobProgress,
    JobStateChanged,
)

JobEvent = JobAck | JobStateChanged | JobProgress | JobComplete | JobFailed


class Link(Enum):
    """Whether events can come in at present."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"


class Preview(msgspec.Struct, frozen=True):
    """An encoded picture of the latents after a step."""

    picture: bytes
    step: int


class Tracked(msgspec.Struct, frozen=True):
    """How a job stands: what a progress bar shows, and in the end its result."""

    job_id: str | None = None
    state: JobState | None = None
    link: Link = Link.CONNECTING
    attempt: int = 0
    phase: Phase | None = None
    step: int = 0
    steps: int = 0
    progress: float = 0.0
    node: str = ""
    preview: Preview | None = None
    outputs: tuple[Output, ...] = ()
    meta: JobMeta | None = None
    error: JobError | None = None
    partial: bool = False

    @property
    def finished(self) -> bool:
        """Whether the job is in a terminal state."""
        return self.state is not None and self.state.terminal


def advance(tracked: Tracked, event: JobEvent) -> Tracked:
    """The job after one event.  Events of other jobs, and any after the end, change nothing."""
    if tracked.finished or tracked.job_id not in (None, event.job_id):
        return tracked
    return msgspec.structs.replace(_entered(tracked, event), **_told(tracked, event))


def _told(tracked: Tracked, event: JobEvent) -> dict[str, Any]:
    """What an event says beside the state."""
    match event:
        case JobAck():
            return {"job_id": event.job_id}
        case JobProgress() if event.attempt >= tracked.attempt:
            fields = ("phase", "step", "steps", "progress")
            # Between two nodes of a workflow the last one is still what a person wants to read.
            node = event.node or (tracked.node if event.phase is tracked.phase else "")
            return {name: getattr(event, name) for name in fields} | {"node": node}
        case JobComplete():
            return {"progress": 1.0, "outputs": event.outputs, "meta": event.meta}
        case JobFailed():
            error = event.error or JobError(event.code, event.message, event.retryable)
            return {"error": error, "outputs": event.outputs, "partial": event.partial}
    return {}


def _entered(tracked: Tracked, event: JobEvent) -> Tracked:
    """The job in the state that an event puts it in; a new attempt begins from nothing."""
    replace = msgspec.structs.replace
    match event:
        case JobAck():
            # A repeated submit may find the job finished; its result is then asked for, not guessed.
            return replace(tracked, state=JobState.RUNNING if event.state.terminal else event.state)
        case JobComplete():
            return replace(tracked, state=JobState.COMPLETED)
        case JobFailed():
            return replace(tracked, state=event.state)
        case JobStateChanged(state=state, attempt=attempt):
            pass
        case JobProgress(attempt=attempt):
            state = JobState.RUNNING
    if attempt < tracked.attempt:
        return tracked
    if attempt > tracked.attempt or state is JobState.QUEUED:
        tracked = replace(tracked, phase=None, step=0, progress=0.0, preview=None)
    return replace(tracked, state=state, attempt=attempt)
