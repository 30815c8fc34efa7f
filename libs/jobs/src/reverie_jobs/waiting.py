"""Waiting jobs, indexed so that a claim costs the same at depth 10 and at depth 20,000.

Pure of I/O and clock.  Jobs are kept per *need* (what a worker must have) and lane; in each of these the owners in
order of their share, and for each owner his jobs by place.  A worker looks at the first few owners of each need it
can serve.  Jobs whose time has not come lie aside, by time.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice

from sortedcontainers import SortedDict, SortedList

from reverie_jobs.claiming import (
    NOTHING_YET,
    ClaimKey,
    Need,
    Share,
    Takes,
    can_serve,
    claim_order,
    due,
    far_away,
    need_of,
    ready_since,
)
from reverie_protocol.jobs import (
    Job,
    JobState,
    Lane,
    Worker,
    WorkerState,
)

Place = tuple[float, str]
Turn = tuple[int, float, str]


class _Queue:
    """The waiting jobs of one need and lane: owners by turn, each with his jobs by place."""

    def __init__(self) -> None:
        self.places: dict[str, SortedDict[Place, Job]] = {}
        self.turns: SortedList[Turn] = SortedList()
        #: Since when each of them could have started.
        self.since: SortedList[tuple[float, str]] = SortedList()


class WaitingRoom:
    """Folds job records in (`update`) and answers who is next (`choose`)."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, Job] = {}
        self._shares: dict[str, Share] = {}
        self._queues: dict[tuple[Need, Lane], _Queue] = {}
        self._owner_queues: dict[str, set[tuple[Need, Lane]]] = defaultdict(set)
        self._asleep: SortedList[tuple[float, str]] = SortedList()
        self._depth = dict.fromkeys(Lane, 0)

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Every waiting job by id, sleepers included."""
        return self._jobs

    def depth(self, lane: Lane) -> int:
        """Waiting jobs in one lane."""
        return self._depth[lane]

    def share(self, owner: str) -> Share:
        """What an owner has had so far."""
        return self._shares.get(owner, NOTHING_YET)

    def update(self, job_id: str, job: Job | None) -> None:
        """The latest record of a job, None if it is gone."""
        self._remove(job_id)
        self._count(job_id, job)
        if job is not None and job.state is JobState.QUEUED:
            self._jobs[job_id] = job
            self._depth[job.priority] += 1
            if job.not_before is None:
                self._enter(job)
            else:
                self._asleep.add((job.not_before, job_id))

    def choose(
        self,
        worker: Worker,
        *,
        now: float,
        paused: frozenset[Lane] = frozenset(),
        takes: Takes | None = None,
    ) -> Job | None:
        """The job this worker should claim next; see `reverie_jobs.claiming.choose` for the rule."""
        if worker.state is not WorkerState.READY:
            return None
        self._wake(now)
        for lane in Lane:
            if lane not in paused and (job := self._first(worker, lane, now, takes)) is not None:
                return job
        return None

    def order(self, limit: int, *, now: float) -> list[Job]:
        """The next `limit` waiting jobs as they stand now, whoever may serve them; sleepers come last.

        It is what a person sees: turns between owners are those of this moment and change with every start.
        """
        self._wake(now)
        ordered: list[Job] = []
        for lane in Lane:
            runs = (
                run.values()
                for (_, queued), queue in self._queues.items()
                if queued is lane
                for run in queue.places.values()
            )
            # Each run is in order already: merging them costs what is taken, not what is waiting.
            ordered += islice(heapq.merge(*runs, key=self._key), limit - len(ordered))
            if len(ordered) >= limit:
                return ordered
        ordered += [self._jobs[job_id] for _, job_id in self._asleep]
        return ordered[:limit]

    def places(self, lane: Lane) -> list[Place]:
        """Places of a lane's waiting jobs, in order: what a move to front, back or between needs."""
        return sorted((job.position, job.id) for job in self._jobs.values() if job.priority is lane)

    def _first(self, worker: Worker, lane: Lane, now: float, takes: Takes | None) -> Job | None:
        best: tuple[tuple[bool, ClaimKey], Job] | None = None
        for (_, queued), queue in self._queues.items():
            if queued is not lane or not queue.turns:
                continue
            # All of a queue need the same: what holds for one holds for the others, but for what `takes` says.
            job = self._first_due(queue, now, None)
            if job is None or not can_serve(job, worker):
                continue
            if takes is not None and not takes(job):
                job = self._first_due(queue, now, takes)
                if job is None:
                    continue
            # All of a queue need the same, so the one that waits longest speaks for them.
            far = far_away(job, worker, waited_s=now - queue.since[0][0])
            key = (far, self._key(job))
            if best is None or key < best[0]:
                best = (key, job)
        return best[1] if best is not None else None

    @staticmethod
    def _first_due(queue: _Queue, now: float, takes: Takes | None) -> Job | None:
        for _, _, owner in queue.turns:
            for job in queue.places[owner].values():
                if due(job, now=now) and (takes is None or takes(job)):
                    return job
        return None

    def _key(self, job: Job) -> ClaimKey:
        return claim_order(job, self.share(job.owner))

    def _wake(self, now: float) -> None:
        while self._asleep and self._asleep[0][0] <= now:
            _, job_id = self._asleep.pop(0)
            self._enter(self._jobs[job_id])

    def _enter(self, job: Job) -> None:
        where = (need_of(job), job.priority)
        queue = self._queues.setdefault(where, _Queue())
        if job.owner not in queue.places:
            queue.places[job.owner] = SortedDict()
            queue.turns.add(self._turn(job.owner))
            self._owner_queues[job.owner].add(where)
        queue.places[job.owner][(job.position, job.id)] = job
        queue.since.add((ready_since(job), job.id))

    def _remove(self, job_id: str) -> None:
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        self._depth[job.priority] -= 1
        if job.not_before is not None and (job.not_before, job_id) in self._asleep:
            self._asleep.remove((job.not_before, job_id))
            return
        where = (need_of(job), job.priority)
        queue = self._queues[where]
        del queue.places[job.owner][(job.position, job.id)]
        queue.since.remove((ready_since(job), job.id))
        if not queue.places[job.owner]:
            del queue.places[job.owner]
            queue.turns.remove(self._turn(job.owner))
            self._owner_queues[job.owner].discard(where)
            if not queue.places:
                del self._queues[where]

    def _count(self, job_id: str, job: Job | None) -> None:
        """Keep the owner's share: running jobs, and the latest start."""
        before = self._running.pop(job_id, None)
        after = job if job is not None and job.state is JobState.RUNNING else None
        if after is not None:
            self._running[job_id] = after
        owner = after.owner if after else before.owner if before else None
        if owner is None:
            return
        share = self.share(owner)
        started = (after.started_at or 0.0) if after else 0.0
        running = share.running + (after is not None) - (before is not None)
        self._reshare(owner, Share(running, max(share.last_started, started)))

    def _reshare(self, owner: str, share: Share) -> None:
        if share == self.share(owner):
            return
        old = self._turn(owner)
        self._shares[owner] = share
        for where in self._owner_queues.get(owner, ()):
            turns = self._queues[where].turns
            turns.remove(old)
            turns.add(self._turn(owner))

    def _turn(self, owner: str) -> Turn:
        share = self.share(owner)
        return (share.running, share.last_started, owner)
