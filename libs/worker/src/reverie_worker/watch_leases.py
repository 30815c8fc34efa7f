"""Who watches: a lease per job, renewed by each message on `job.watch.<id>` (docs/adr/0006)."""

from __future__ import annotations

from reverie_protocol.subjects import WATCH_LEASE_S

#: Leases kept at most; beyond it the oldest goes (a watcher renews within seconds).
MAX_LEASES = 10_000


class WatchLeases:
    """Pure over the times it is given, monotonic seconds."""

    def __init__(self, *, lease_s: float = WATCH_LEASE_S) -> None:
        self._lease_s = lease_s
        self._until: dict[str, float] = {}

    def renew(self, job_id: str, *, now: float) -> None:
        """Somebody watches this job."""
        self._until.pop(job_id, None)
        self._until[job_id] = now + self._lease_s
        while len(self._until) > MAX_LEASES or next(iter(self._until.values())) < now:
            del self._until[next(iter(self._until))]

    def watched(self, job_id: str, *, now: float) -> bool:
        """Whether somebody watched this job within the lease."""
        return self._until.get(job_id, float("-inf")) >= now
