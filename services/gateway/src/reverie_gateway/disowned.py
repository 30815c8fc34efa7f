"""Submits that were answered with an error although NATS may have taken them: such a job must not run.

The client was told no and will ask again; a ghost beside its second try would be work twice.  Only jobs whose id is
drawn are disowned: with an idempotency key, and of a retry, the second try finds the first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from reverie_jobs.mirror import Change, JobMirror
from reverie_protocol.jobs import Job

#: Ids that are remembered; the oldest is forgotten first.
MAX_IDS = 10_000


class Disowned:
    """Ids of such jobs; `on_ghost` is called when one of them shows up in the mirror unfinished."""

    def __init__(self, jobs: JobMirror, *, on_ghost: Callable[[Job], None]) -> None:
        self._jobs = jobs
        self._on_ghost = on_ghost
        self._ids: OrderedDict[str, None] = OrderedDict()
        jobs.listen(self._on_change)

    def add(self, job: Job, *, found_again: bool | None = None) -> None:
        """Remember that the client was told this job was not taken.

        `found_again` is whether a second try finds it, where its key does not tell: we draw keys too.
        """
        if found_again is None:
            found_again = job.idempotency_key is not None or job.retry_of is not None
        if found_again:
            return
        self._ids[job.id] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)
        self._check(self._jobs.get(job.id))

    def _on_change(self, change: Change[Job]) -> None:
        self._check(change.record)

    def _check(self, job: Job | None) -> None:
        if job is not None and job.id in self._ids and not job.state.terminal:
            del self._ids[job.id]
            self._on_ghost(job)
