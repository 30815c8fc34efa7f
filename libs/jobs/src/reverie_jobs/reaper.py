"""Finds dead workers and queues their jobs again; fails the jobs whose time ran out.

`Suspicion` is the pure rule, `Reaper` the actor around it; any number of processes may run one, since a requeue is
a compare-and-set.  Time is this process's own monotonic clock; nothing is concluded from a record's timestamps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import structlog

from reverie_jobs.mirror import JobMirror, WorkerMirror
from reverie_jobs.store import JobStore
from reverie_jobs.transitions import Claim, Refused, Superseded, expire, overdue, requeue
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import Job
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
PING_INTERVAL_S = 0.2
PING_TIMEOUT_S = 0.5
#: A round takes no longer than this when a worker does not answer; only what is above it may have been a freeze.
ROUND_S = PING_INTERVAL_S + PING_TIMEOUT_S

log = structlog.get_logger(__name__)


class _Pulse(msgspec.Struct):
    heard_at: float
    absent: int = 0


class Suspicion:
    """Which workers are dead, from what was heard and when; times are monotonic seconds.

    Silence counts only while this process itself could hear: it starts anew after each reconnect of our own and
    after each time we were frozen ourselves (a tick that came a lease too late).
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
        """Which workers are watched from now on; call it regularly."""
        if self._last_tick is not None and now - self._last_tick > ROUND_S + self._lease_s / 2:
            self.connection(self._listening_since is not None, now=now)
        self._last_tick = now
        watched = set(workers)
        self._pulses = {worker: pulse for worker, pulse in self._pulses.items() if worker in watched}
        for worker in watched - self._pulses.keys():
            self._pulses[worker] = _Pulse(heard_at=now)

    def awake(self, *, now: float) -> None:
        """This process was busy, not frozen, until now."""
        self._last_tick = now

    def answered(self, worker: str, *, now: float) -> None:
        """The worker answered a ping."""
        if worker in self._pulses:
            self._pulses[worker] = _Pulse(heard_at=now)

    def absent(self, worker: str) -> None:
        """The server says that nobody listens on the worker's subject."""
        if worker in self._pulses:
            self._pulses[worker].absent += 1

    def dead(self, *, now: float) -> set[str]:
        """Workers that are certainly gone, or silent for a lease while we listened for as long."""
        since = self._listening_since
        if since is None or now - since < self._lease_s:
            return set()
        return {
            worker
            for worker, pulse in self._pulses.items()
            if pulse.absent >= ABSENT_LIMIT or now - pulse.heard_at >= self._lease_s
        }


async def requeue_lost(store: JobStore, job: Job, *, now: float) -> None:
    """Queue a dead worker's job again; quietly nothing if it has moved on meanwhile."""
    held = Claim(job.id, job.worker or "", job.attempt)
    try:
        moved = await store.apply(job.id, partial(requeue, held=held, crashed=True, now=now))
    except (Refused, Superseded, ReverieError):
        return
    log.warning(
        "worker lost, job requeued",
        job_id=job.id,
        worker=job.worker,
        attempt=job.attempt,
        state=moved.job.state,
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
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

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
            await self._clock.sleep(PING_INTERVAL_S)

    async def _round(self) -> None:
        workers = {job.worker for job in self._jobs.running.values() if job.worker}
        self._suspicion.tick(workers, now=self._clock.monotonic())
        await asyncio.gather(*(self._ping(worker) for worker in workers))
        dead = self._suspicion.dead(now=self._clock.monotonic())
        lost = [job for job in self._jobs.running.values() if job.worker in dead]
        for job in lost:
            await requeue_lost(self._store, job, now=self._clock.time())
        for job in tuple(self._jobs.limited.values()):
            if overdue(job, now=self._clock.time()):
                await self._expire(job)
        self._suspicion.awake(now=self._clock.monotonic())

    async def _expire(self, job: Job) -> None:
        try:
            ended = await self._store.apply(job.id, partial(expire, now=self._clock.time()))
        except (Refused, ReverieError):
            return
        log.info("job was not done in time", job_id=job.id, state=ended.job.state)

    async def _ping(self, worker: str) -> None:
        try:
            await self._bus.request(worker_ping(worker), b"", timeout=PING_TIMEOUT_S)
        except NoResponders:
            self._suspicion.absent(worker)
        except (RequestTimeout, BusUnavailable):
            return
        else:
            self._suspicion.answered(worker, now=self._clock.monotonic())


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
        try:
            await bus.request(worker_ping(key), b"", timeout=PING_TIMEOUT_S)
        except NoResponders:
            await bucket.delete(key)
        except (RequestTimeout, BusUnavailable):
            continue


async def requeue_former_self(bus: Bus, store: JobStore, jobs: JobMirror, *, name: str, now: float) -> int:
    """At boot: queue again what an earlier process of this worker's name left running; how many.

    A former process that still answers is no former one: two workers share a name, and its jobs are left alone.
    """
    own = [job for job in jobs.running.values() if job.worker and job.worker.rpartition(".")[0] == name]
    for job in own:
        try:
            await bus.request(worker_ping(job.worker or ""), b"", timeout=PING_TIMEOUT_S)
        except NoResponders:
            await requeue_lost(store, job, now=now)
        except (RequestTimeout, BusUnavailable):
            continue
        else:
            log.error("another worker of this name is alive", worker=job.worker)
    return len(own)
