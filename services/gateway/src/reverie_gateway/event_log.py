"""What happened to whose jobs, in order: resumes are served from here.  Pure of I/O and clock.

A gateway fills it from the bucket's kept history when it starts, and with each revision after that, so every
gateway can answer any client, also one that was connected elsewhere before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

from reverie_gateway.events import Event

#: Events kept at most; beyond it the oldest half is forgotten, and older cursors are no longer recovered.
MAX_EVENTS = 200_000
#: What is older than the retention is forgotten by halves, once that is worth the work.
MIN_FORGOTTEN = 1000


class EventLog:
    """Events of all owners by revision, and which cursors can be served without a gap."""

    def __init__(self, *, retention_s: float, max_events: int = MAX_EVENTS) -> None:
        self._retention_s = retention_s
        self._max_events = max_events
        self.reset()

    def reset(self) -> None:
        """Begin anew: the bucket was made anew, its revisions mean something else now."""
        self._revisions: list[int] = []
        self._times: list[float] = []
        self._own: dict[str, list[Event]] = defaultdict(list)
        self._silent = 0  # newest revisions in a row without an event
        self._forgotten = 0
        self._last_hole = 0

    def __len__(self) -> int:
        return len(self._revisions)

    def add(self, seq: int, *, at: float, event: Event | None) -> None:
        """The next revision, committed at `at` (epoch seconds); no event where clients learn nothing (a purge)."""
        newest = self.newest
        if seq <= newest:
            return
        if seq > newest + 1:
            self._last_hole = seq - 1
        at = max(at, self._times[-1]) if self._times else at
        self._silent = self._silent + 1 if event is None else 0
        if self._silent > 2:
            # Of however many the first and the last: a long dream would crowd out what clients come back for.
            self._revisions[-1], self._times[-1] = seq, at
        else:
            self._revisions.append(seq)
            self._times.append(at)
        if event is not None:
            self._own[event.owner].append(event)
        half = len(self._revisions) // 2
        too_old = half > MIN_FORGOTTEN and self._times[half] < at - self._retention_s
        if too_old or len(self._revisions) > self._max_events:
            self._forget(half)

    @property
    def newest(self) -> int:
        """The latest revision that was added, 0 if there is none."""
        return self._revisions[-1] if self._revisions else 0

    def doubt(self, seq: int) -> None:
        """Something up to `seq` is missing here that was committed: no cursor before it is recovered any more."""
        self._forgotten = max(self._forgotten, seq)

    def since(self, owner: str, cursor: int, *, head: int = 0, now: float) -> list[Event] | None:
        """An owner's events after `cursor`, in order; None if some of them may be gone.

        `head` is the bucket's latest revision, where that is one that this log had nothing to learn from.
        """
        if not self._reaches(cursor, head=head, now=now):
            return None
        own = self._own.get(owner, [])
        return own[bisect_right(own, cursor, key=_seq) :]

    def of_job(self, owner: str, job_id: str) -> list[Event]:
        """All kept events of one job, in order."""
        return [event for event in self._own.get(owner, []) if event.job_id == job_id]

    def _reaches(self, cursor: int, *, head: int, now: float) -> bool:
        """Whether every revision after `cursor` is here.

        Holes are marks of purges, and revisions of jobs that were purged before this log began: those ended longer
        ago than the retention.  So a cursor is good if no hole follows it, or if what it saw last is younger than
        that.  What makes this true is not known here: who fills the log says with `doubt` where it may not be.
        """
        if cursor > max(self.newest, head) or cursor < self._forgotten:
            return False
        if cursor >= self._last_hole:
            return True
        seen = bisect_right(self._revisions, cursor)
        return seen > 0 and self._times[seen - 1] >= now - self._retention_s

    def _forget(self, count: int) -> None:
        forgotten = self._revisions[count - 1]
        self.doubt(forgotten)
        del self._revisions[:count]
        del self._times[:count]
        for owner in list(self._own):
            own = self._own[owner]
            del own[: bisect_right(own, forgotten, key=_seq)]
            if not own:
                del self._own[owner]


def _seq(event: Event) -> int:
    return event.seq
