"""The workers there are, and those that went without a word."""

from __future__ import annotations

from typing import Final

import msgspec

from reverie_jobs.mirror import Change, WorkerMirror
from reverie_protocol.jobs import Worker, WorkerState
from reverie_runtime.clock import Clock

#: A worker beats every 0.5 to 1 s; one that has not for this long is not counted.
ALIVE_S: Final = 3.0
#: A worker that is gone for this long is not expected any more.
FORGET_S: Final = 3600.0


class _Heard(msgspec.Struct):
    """The latest of one worker name; `at` is when it came, by the monotonic clock."""

    record: Worker
    key: str
    at: float


class WorkerRegistry:
    """Folds heartbeats into who is there.

    A worker that withdraws its record said good-bye; silence is no good-bye.  Silence is counted only while the bus
    is there, from when it came back.
    """

    def __init__(self, workers: WorkerMirror, *, clock: Clock, connected: bool) -> None:
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._listening_since: float | None = clock.monotonic() if connected else None
        for worker in workers:
            self._beat(f"{worker.name}.{worker.incarnation}", worker)
        workers.listen(self._on_change)

    def on_connection(self, connected: bool) -> None:
        """The bus was reached again, or lost."""
        self._listening_since = self._clock.monotonic() if connected else None

    def alive(self) -> list[Worker]:
        """Workers that beat lately, by name."""
        since = self._clock.monotonic() - ALIVE_S
        return [heard.record for _, heard in sorted(self._heard.items()) if heard.at >= since]

    def ready(self) -> list[Worker]:
        """Workers that beat lately and take jobs."""
        return [worker for worker in self.alive() if worker.state is WorkerState.READY]

    def silence(self) -> dict[str, float]:
        """Seconds without a heartbeat by name, of those who did not say good-bye; nothing while the bus is away."""
        if self._listening_since is None:
            return {}
        now = self._clock.monotonic()
        for name in [name for name, heard in self._heard.items() if now - heard.at > FORGET_S]:
            del self._heard[name]
        return {
            name: now - max(heard.at, self._listening_since) for name, heard in sorted(self._heard.items())
        }

    def _on_change(self, change: Change[Worker]) -> None:
        if change.record is not None:
            self._beat(change.key, change.record)
        elif change.previous is not None:
            self._withdrawn(change.key, change.previous)

    def _beat(self, key: str, worker: Worker) -> None:
        self._heard[worker.name] = _Heard(worker, key, self._clock.monotonic())

    def _withdrawn(self, key: str, worker: Worker) -> None:
        """A record went: its worker took it back, or it expired long after the last beat."""
        heard = self._heard.get(worker.name)
        if heard is not None and heard.key == key and self._clock.monotonic() - heard.at < ALIVE_S:
            del self._heard[worker.name]
