"""Place in the queue of waiting jobs, without sorting a deep queue for every question."""

from __future__ import annotations

from reverie_jobs.mirror import JobMirror
from reverie_protocol.jobs import Job, JobState
from reverie_runtime.clock import Clock

#: Up to this depth an answer is always exact.
EXACT_DEPTH = 1000
#: Beyond it, an answer may be this old, in seconds.
MAX_AGE_S = 0.5


class Standings:
    """Place by job id, 0 is next; computed at most once per change, or per `MAX_AGE_S` of a deep queue."""

    def __init__(self, jobs: JobMirror, *, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._places: dict[str, int] = {}
        self._revision = -1
        self._computed_at = 0.0

    def place_of(self, job: Job) -> int | None:
        """Where a waiting job stands; None if it does not wait."""
        if job.state is not JobState.QUEUED:
            return None
        self._refresh()
        return self._places.get(job.id, len(self._places))

    def _refresh(self) -> None:
        if self._revision == self._jobs.revision:
            return
        depth = len(self._jobs.waiting)
        now = self._clock.monotonic()
        if depth > EXACT_DEPTH and now - self._computed_at < MAX_AGE_S:
            return
        self._places = {
            job.id: place for place, job in enumerate(self._jobs.waiting.order(depth, now=self._clock.time()))
        }
        self._revision, self._computed_at = self._jobs.revision, now
