"""ComfyUI jobs in the shape that existing frontends poll."""

from __future__ import annotations

from typing import Final

from reverie_gateway.hub import Hub
from reverie_jobs.mirror import WorkerMirror
from reverie_protocol.comfy_bodies import (
    ComfyJobProgress,
    ComfyJobView,
    ComfyNodeSeen,
    ComfyOutput,
    ComfyWhere,
    LegacyState,
)
from reverie_protocol.jobs import ComfyParams, ComfyRun, Job, JobState, Output

STATES: Final[dict[JobState, LegacyState]] = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.COMPLETED: "done",
    JobState.FAILED: "error",
    JobState.CANCELLED: "canceled",
}


class ComfyLens:
    """Shows a job's record together with its latest progress and its worker's latest sign of life."""

    def __init__(self, hub: Hub, workers: WorkerMirror) -> None:
        self._hub = hub
        self._workers = workers

    def show(self, job: Job) -> ComfyJobView:
        """What the owner of a job is shown."""
        now = self._hub.progress_of(job)
        told = now.comfy if now is not None else None
        run = told or (job.meta.comfy if job.meta else None)
        fraction = 1.0 if job.state is JobState.COMPLETED else now.progress if now else 0.0
        return ComfyJobView(
            id=job.id,
            workflow_id=job.params.workflowId if isinstance(job.params, ComfyParams) else None,
            status=STATES[job.state],
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            heartbeat_at=self._heard_at(job),
            updated_at=job.updated_at,
            error=job.error.message if job.error else None,
            outputs=tuple(map(_output, job.outputs)),
            comfy=_where(run),
            progress=_progress(run, fraction),
            code=job.error.code if job.error else None,
            node_errors=(job.error.node_errors or ()) if job.error else (),
            partial=job.partial,
        )

    def _heard_at(self, job: Job) -> float | None:
        if job.state is not JobState.RUNNING or job.worker is None:
            return job.finished_at
        worker = self._workers.get(job.worker)
        return job.updated_at if worker is None else max(worker.beat_at, job.updated_at)


def _output(output: Output) -> ComfyOutput:
    return ComfyOutput(
        id=output.key,
        url=output.url,
        filename=output.filename or output.key,
        type=output.folder_type or "output",
        subfolder=output.subfolder,
        node=output.node,
        kind=output.kind,
        content_type=output.content_type,
        partial=output.partial,
    )


def _where(run: ComfyRun | None) -> ComfyWhere:
    if run is None:
        return ComfyWhere()
    return ComfyWhere(run.client_id or None, run.prompt_id or None, run.instance)


def _progress(run: ComfyRun | None, fraction: float) -> ComfyJobProgress:
    if run is None:
        return ComfyJobProgress(fraction=fraction)
    return ComfyJobProgress(
        nodes_total=run.nodes_total,
        nodes_seen=run.nodes_seen,
        current_node=run.current[0] if run.current else None,
        node_progression=tuple(
            ComfyNodeSeen(node.id, node.title, node.class_type, node.state, node.progress, node.seconds)
            for node in run.nodes
        ),
        fraction=fraction,
    )
