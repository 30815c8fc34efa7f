"""From job records and progress to the messages a socket gets; pure, and each event is encoded and framed once."""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from reverie_gateway.eta import eta_seconds
from reverie_gateway.frame import text_frame
from reverie_jobs.mirror import Change
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import Job, JobState, Progress
from reverie_protocol.server_messages import (
    JobComplete,
    JobFailed,
    JobProgress,
    JobStateChanged,
    ServerMessage,
)

_encoder = msgspec.json.Encoder()


class Delivery(Enum):
    """How an event may be treated on its way."""

    STATE = auto()
    """Must arrive."""
    PROGRESS = auto()
    """A later one replaces it."""
    FINAL = auto()
    """Must arrive, and makes unsent progress of its job untrue."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One encoded job event for the sockets of its owner; `seq` is the revision of the job's record."""

    owner: str
    job_id: str
    delivery: Delivery
    frame: bytes
    seq: int


def encode(message: ServerMessage) -> bytes:
    """A message as a text frame: the bytes as they go to any socket."""
    return text_frame(_encoder.encode(message))


def state_message(job: Job, revision: int) -> ServerMessage:
    """What clients are told of this revision of a job."""
    if job.state is JobState.COMPLETED:
        return JobComplete(
            job_id=job.id, outputs=job.outputs, meta=job.meta, seq=revision, job_seq=job.job_seq
        )
    if job.state.terminal:
        error = job.error
        return JobFailed(
            job_id=job.id,
            state=job.state,
            code=error.code if error else ErrorCode.INTERNAL,
            message=error.message if error else "the job failed",
            retryable=error.retryable if error else False,
            outputs=job.outputs,
            partial=job.partial,
            error=error,
            seq=revision,
            job_seq=job.job_seq,
        )
    return JobStateChanged(
        job_id=job.id,
        job_type=job.type,
        state=job.state,
        priority=job.priority,
        attempt=job.attempt,
        cancelling=job.cancel,
        worker=job.worker,
        seq=revision,
        job_seq=job.job_seq,
    )


def state_event(job: Job, revision: int) -> Event:
    """The event of one revision of a job."""
    delivery = Delivery.FINAL if job.state.terminal else Delivery.STATE
    return Event(job.owner, job.id, delivery, encode(state_message(job, revision)), revision)


def progress_event(job: Job, progress: Progress, revision: int) -> Event:
    """The event of a running job's latest progress; `revision` is that of the job's record."""
    message = JobProgress(
        job_id=job.id,
        attempt=progress.attempt,
        phase=progress.phase,
        step=progress.step,
        steps=progress.steps,
        progress=progress.progress,
        eta_seconds=eta_seconds(job, progress),
        node=progress.node,
        comfy=progress.comfy,
        seq=revision,
    )
    return Event(job.owner, job.id, Delivery.PROGRESS, encode(message), revision)


def change_event(change: Change[Job]) -> Event | None:
    """The event of a committed change; None where clients have nothing to learn (a purge)."""
    return None if change.record is None else state_event(change.record, change.revision)
