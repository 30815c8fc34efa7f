"""Every NATS subject and KV bucket of Reverie.  Any service may subscribe; who publishes is written beside it."""

from __future__ import annotations

from typing import Final

import msgspec

JOBS_BUCKET: Final = "jobs"
WORKERS_BUCKET: Final = "workers"
WORKER_TTL_S: Final = 30.0

#: Committed revisions of job records, republished by the server (gateway, workers and reaper write the bucket).
JOB_STATE: Final = "job.state.>"
#: Progress of running jobs (workers), latest wins.
JOB_PROGRESS: Final = "job.progress.*"
#: Preview frames of running jobs (workers), only while somebody watches.
JOB_PREVIEW: Final = "job.preview.*"
#: "I am watching this job's previews" (gateways, or anybody), repeated every `WATCH_REPEAT_S`.
JOB_WATCH: Final = "job.watch.*"
WATCH_REPEAT_S: Final = 2.0
WATCH_LEASE_S: Final = 5.0
#: System status (monitor; until it runs, each gateway derives its own).
SYSTEM_STATUS: Final = "system.status"
#: Mirror of the queue (gateway).
QUEUE_STATE: Final = "queue.state"


def job_state(job_id: str) -> str:
    """Subject on which committed revisions of one job appear."""
    return f"job.state.{job_id}"


def job_progress(job_id: str) -> str:
    """Subject of one job's progress; payload `Progress`."""
    return f"job.progress.{job_id}"


def job_preview(job_id: str) -> str:
    """Subject of one job's preview frames; payload `reverie_protocol.preview`."""
    return f"job.preview.{job_id}"


def job_watch(job_id: str) -> str:
    """Subject that keeps one job's previews flowing; empty payload."""
    return f"job.watch.{job_id}"


def worker_ping(worker: str) -> str:
    """Request/reply liveness of one worker by its key; an answer proves that it can receive work."""
    return f"worker.ping.{worker}"


def worker_ctl(worker: str) -> str:
    """Hints to one worker by its key; payload `WorkerHint`.  A lost hint only delays: the record is the truth."""
    return f"worker.ctl.{worker}"


class WorkerHint(msgspec.Struct, frozen=True, rename="camel"):
    """Asks a worker to look at a job's record now (it was cancelled or changed)."""

    job_id: str


def worker_key(name: str, incarnation: str) -> str:
    """Key of a worker's record in the bucket `workers`."""
    return f"{name}.{incarnation}"
