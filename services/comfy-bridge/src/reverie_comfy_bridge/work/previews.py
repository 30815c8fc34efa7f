"""Previews of a prompt, passed on while somebody watches and at a bounded rate."""

from __future__ import annotations

from reverie_comfy_bridge.run.events import PreviewShown
from reverie_comfy_bridge.work.assignment import PromptAssignment
from reverie_comfy_bridge.work.media import HEAD_BYTES, picture_size
from reverie_protocol.preview import PreviewHeader, encode_preview
from reverie_runtime.bus.port import Message
from reverie_runtime.clock import Clock
from reverie_worker.watch_leases import WatchLeases

#: Larger previews would not fit into a message of the bus.
MAX_PREVIEW_BYTES = 900_000
SHOWN = ("image/jpeg", "image/png")


class Previews:
    """Of all instances; a frame waits in the assignment, the latest only."""

    def __init__(self, *, most_per_second: float, clock: Clock) -> None:
        self._interval_s = 1 / most_per_second
        self._clock = clock
        self._leases = WatchLeases()
        self._shown_at: dict[str, float] = {}

    async def on_watch(self, message: Message) -> None:
        """Somebody watches a job."""
        self._leases.renew(message.subject.rpartition(".")[2], now=self._clock.monotonic())

    def show(self, assignment: PromptAssignment, event: PreviewShown) -> None:
        """A preview came."""
        now, job = self._clock.monotonic(), assignment.job
        if now < self._shown_at.get(job.id, 0.0) + self._interval_s:
            return
        if event.media_type not in SHOWN or len(event.image) > MAX_PREVIEW_BYTES:
            return
        if not self._leases.watched(job.id, now=now):
            return
        self._shown_at[job.id] = now
        width, height = picture_size(event.image[:HEAD_BYTES])
        latest = assignment.progress.latest
        header = PreviewHeader(
            job_id=job.id,
            attempt=job.attempt,
            step=latest.step,
            steps=latest.steps,
            width=width,
            height=height,
            content_type=event.media_type,
        )
        assignment.preview_frame = encode_preview(header, event.image)
        assignment.changed.set()

    def ended(self, job_id: str) -> None:
        """No more will come of this job."""
        self._shown_at.pop(job_id, None)
