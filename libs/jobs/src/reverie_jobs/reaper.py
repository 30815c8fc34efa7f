"""Finds dead workers and queues their jobs again; fails the jobs whose time ran out.

`Suspicion` is the pure rule, `Reaper` the actor around it; any number of processes may run one, since a requeue is
a compare-and-set.  Time is this process's own monotonic clock; nothing is concluded from a record's timestamps.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import structlog

from reverie_jobs.mirror import JobMirror, WorkerMirror
from reverie_jobs.store import JobStore
from reverie_jobs.transitions import MAX_CRASHES, Claim, Refused, Superseded, expire, overdue, requeue
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import Job, JobType
from reverie_protocol.subjects import worker_key, worker_ping
from reverie_runtime.bus.port import (
    Bucket,
    Bus,
    BusError,
    BusUnavailable,
    NoResponders,
    RequestTimeout,
)
from reverie_runtime.clock import Clock

#: A worker that has not answered for this long is dead, in seconds.
LEASE_S = 2.0
#: This many answers of "nobody listens" in a row need no lease.
ABSENT_LIMIT = 2
#: Attempts of a ComfyUI job from which on the loss of a bridge counts like that of any worker.
MOST_BRIDGES = 20
PING_INTERVAL_S = 0.2
PING_TIMEOUT_S = 0.5
#: A round of ours that came later than this counts as this long a silence of others.
COUNTED_S = 2 * PING_INTERVAL_S
#: Pings of one worker on their way at once; each waits for a lease.
MOST_UNANSWERED = 10

log = structlog.get_logger(__name__)


class _Pulse(msgspec.Struct):
    silent_s: float = 0.0
    absent: int = 0


class Suspicion:
    """Which workers are dead, from what was heard and when; times are monotonic seconds.

    Silence counts only while this process itself could hear: it starts anew after each reconnect of our own and
    after each time we were frozen ourselves (a tick that came half a lease too late).  A tick that came a little
    late counts as if it had been in time: who is starved of CPU must not take his own slowness for others'.
    """

    def __init__(self, *, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._pulses: dict[str, _Pulse] = {}
        self._listening_since: float | None = None
        self._last_tick: float | None = None

    def connection(self, connected: bool, *, now: float) -> None:
        """Our own connection came or went."""
        self._listening_since = now if connected else None
        self._pulses.clear()

    def tick(self, workers: Iterable[str], *, now: float) -> None:
        """Which workers are watched from now on; call it every `PING_INTERVAL_S`."""
        passed = 0.0 if self._last_tick is None else now - self._last_tick
        self._last_tick = now
        if passed > PING_INTERVAL_S + self._lease_s / 2:
            self.connection(self._listening_since is not None, now=now)
        watched = set(workers)
        self._pulses = {worker: pulse for worker, pulse in self._pulses.items() if worker in watched}
        for pulse in self._pulses.values():
            pulse.silent_s += min(passed, COUNTED_S)
        for worker in watched - self._pulses.keys():
            self._pulses[worker] = _Pulse()

    def awake(self, *, now: float) -> None:
        """This process was busy, not frozen, until now; what it did not listen to is held against nobody."""
        self._last_tick = now

    def answered(self, worker: str) -> None:
        """The worker answered a ping."""
        if worker in self._pulses:
            self._pulses[worker] = _Pulse()

    def absent(self, worker: str) -> None:
        """The server says that nobody listens on the worker's subject."""
        if worker in self._pulses:
            self._pulses[worker].absent += 1

    def gone(self, worker: str) -> bool:
        """Whether the worker's connection is known to be no more; one that is only silent may be slow."""
        return worker in self._pulses and self._pulses[worker].absent >= ABSENT_LIMIT

    def dead(self, *, now: float) -> set[str]:
        """Workers that are certainly gone, or silent for a lease while we listened for as long."""
        since = self._listening_since
        if since is None or now - since < self._lease_s:
            return set()
        # Sums of ticks are not exact.
        enough_s = self._lease_s - PING_INTERVAL_S / 2
        return {
            worker
            for worker, pulse in self._pulses.items()
            if pulse.absent >= ABSENT_LIMIT or pulse.silent_s >= enough_s
        }


async def answers(bus: Bus, worker: str, *, timeout: float) -> bool | None:
    """Whether a worker is alive; None if nobody can say: it was silent, or we were not connected."""
    try:
        await bus.request(worker_ping(worker), b"", timeout=timeout)
    except NoResponders:
        return False
    except (RequestTimeout, BusUnavailable):
        return None
    return True


async def requeue_lost(bus: Bus, store: JobStore, job: Job, *, gone: bool, now: float) -> None:
    """Queue a dead worker's job again; quietly nothing if it has moved on meanwhile.

    Before it could fail as `crash_loop`, the workers that it lost earlier are asked once more: a worker that was
    frozen, starved or cut off, and came back, was not killed by this job.
    """
    alive: set[str] = set()
    if len(job.lost_workers) + 1 >= MAX_CRASHES:
        earlier = [worker for worker in job.lost_workers if worker != job.worker]
        asked = await asyncio.gather(*(answers(bus, worker, timeout=LEASE_S) for worker in earlier))
        alive = {worker for worker, answer in zip(earlier, asked, strict=True) if answer}
    held = Claim(job.id, job.worker or "", job.attempt)
    # A bridge runs nothing of a ComfyUI job, whose prompt goes on without it, and all its instances die at once.
    to_blame = job.type is not JobType.COMFY or job.attempt >= MOST_BRIDGES
    change = partial(requeue, held=held, crashed=to_blame, gone=gone, alive=alive, now=now)
    try:
        moved = await store.apply(job.id, change)
    except (Refused, Superseded, ReverieError):
        return
    log.warning(
        "worker lost, job requeued",
        job_id=job.id,
        worker=job.worker,
        attempt=job.attempt,
        state=moved.job.state,
        gone=gone,
    )


class Reaper:
    """Pings every worker that runs a job, requeues the jobs of the dead, and fails those that are overdue."""

    def __init__(
        self, bus: Bus, store: JobStore, jobs: JobMirror, *, clock: Clock, lease_s: float = LEASE_S
    ) -> None:
        self._bus = bus
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._suspicion = Suspicion(lease_s=lease_s)
        self._unanswered: Counter[str] = Counter()
        self._pings: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        bus.on_connection(self._on_connection)
        if bus.connected:
            self._on_connection(True)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Reap while the context is open."""
        task = asyncio.create_task(self._loop(), name="reaper")
        try:
            yield
        finally:
            for each in (task, *self._pings):
                each.cancel()
            await asyncio.gather(task, *self._pings, return_exceptions=True)

    def _on_connection(self, connected: bool) -> None:
        self._suspicion.connection(connected, now=self._clock.monotonic())

    async def _loop(self) -> None:
        while True:
            try:
                await self._round()
            except BusError as error:
                log.info("reaper waits for the bus", reason=str(error))
            except Exception:
                log.exception("a round of the reaper failed")
            await self._pause()

    async def _pause(self) -> None:
        """Until the next round is due, or a worker turned out to be gone."""
        self._news.clear()
        waits = (
            asyncio.ensure_future(self._clock.sleep(PING_INTERVAL_S)),
            asyncio.ensure_future(self._news.wait()),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _round(self) -> None:
        workers = {job.worker for job in self._jobs.running.values() if job.worker}
        self._suspicion.tick(workers, now=self._clock.monotonic())
        for worker in workers:
            self._ask(worker)
        for worker in self._suspicion.dead(now=self._clock.monotonic()):
            await self._bury(worker)
        for job in tuple(self._jobs.limited.values()):
            if overdue(job, now=self._clock.time()):
                await self._expire(job)
        self._suspicion.awake(now=self._clock.monotonic())

    async def _bury(self, worker: str) -> None:
        """Queue again what a dead worker was running."""
        gone = self._suspicion.gone(worker)
        for job in [job for job in self._jobs.running.values() if job.worker == worker]:
            await requeue_lost(self._bus, self._store, job, gone=gone, now=self._clock.time())

    async def _expire(self, job: Job) -> None:
        try:
            ended = await self._store.apply(job.id, partial(expire, now=self._clock.time()))
        except (Refused, ReverieError):
            return
        log.info("job was not done in time", job_id=job.id, state=ended.job.state)

    def _ask(self, worker: str) -> None:
        """Ping a worker without waiting for it: nobody's silence delays the others, and a late answer is one."""
        if self._unanswered[worker] < MOST_UNANSWERED:
            self._unanswered[worker] += 1
            task = asyncio.create_task(self._ping(worker), name=f"ping {worker}")
            self._pings.add(task)
            task.add_done_callback(self._pings.discard)

    async def _ping(self, worker: str) -> None:
        try:
            answer = await answers(self._bus, worker, timeout=LEASE_S)
            if answer:
                self._suspicion.answered(worker)
            elif answer is False:
                self._suspicion.absent(worker)
                if self._suspicion.gone(worker):
                    self._news.set()
        finally:
            self._unanswered[worker] -= 1
            if not self._unanswered[worker]:
                del self._unanswered[worker]


async def withdraw_former_self(
    bus: Bus, bucket: Bucket, workers: WorkerMirror, *, name: str, now_running: str
) -> None:
    """At boot: take back the heartbeat records that earlier processes of this worker's name left behind.

    Until they expire (30 s) the dead would count as able to do what the living cannot.
    """
    for worker in tuple(workers):
        key = worker_key(worker.name, worker.incarnation)
        if worker.name != name or key == now_running:
            continue
        if await answers(bus, key, timeout=PING_TIMEOUT_S) is False:
            await bucket.delete(key)


async def requeue_former_self(bus: Bus, store: JobStore, jobs: JobMirror, *, name: str, now: float) -> int:
    """At boot: queue again what an earlier process of this worker's name left running; how many.

    A former process that still answers is no former one: two workers share a name, and its jobs are left alone.
    """
    own = [job for job in jobs.running.values() if job.worker and job.worker.rpartition(".")[0] == name]
    for job in own:
        answer = await answers(bus, job.worker or "", timeout=PING_TIMEOUT_S)
        if answer is False:
            await requeue_lost(bus, store, job, gone=True, now=now)
        elif answer:
            log.error("another worker of this name is alive", worker=job.worker)
    return len(own)
