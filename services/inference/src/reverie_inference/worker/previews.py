"""Previews: asked of the engine while somebody watches, at a bounded rate, and one at a time per job."""

from __future__ import annotations

from collections.abc import Callable

from reverie_inference.engine.events import Stepped
from reverie_inference.worker.assignment import EngineAssignment
from reverie_inference.worker.engine_thread import PreviewMade
from reverie_protocol.preview import PreviewHeader, encode_preview
from reverie_worker.watch_leases import WatchLeases


class Previews:
    """Pure over the times it is given, monotonic seconds.  `request` asks the engine; False if it is too busy."""

    def __init__(self, request: Callable[[str], bool], *, most_per_second: float) -> None:
        self._request = request
        self._interval_s = 1 / most_per_second
        self.leases = WatchLeases()

    def on_step(self, assignment: EngineAssignment, event: Stepped, *, now: float) -> None:
        """A step is done; the last one needs no preview, the picture itself follows."""
        if event.step >= event.steps or assignment.preview_pending:
            return
        if assignment.job.session is not None and 2 * event.step < event.steps - 1:
            return  # a dream looks once at each draft: half-way, when there is something to see
        if now < assignment.preview_asked_at + self._interval_s:
            return
        if self.leases.watched(assignment.job.id, now=now):
            assignment.preview_asked_at = now
            assignment.preview_pending = self._request(assignment.run_id)

    def on_made(self, assignment: EngineAssignment, made: PreviewMade) -> None:
        """A preview is there (or there is none to be had): the latest waits to be published."""
        assignment.preview_pending = False
        if made.preview is None:
            return
        latest = assignment.progress.latest
        header = PreviewHeader(
            job_id=assignment.job.id,
            attempt=assignment.job.attempt,
            step=latest.step,
            steps=latest.steps,
            width=made.preview.width,
            height=made.preview.height,
        )
        assignment.preview_frame = encode_preview(header, made.preview.jpeg)
        assignment.changed.set()
