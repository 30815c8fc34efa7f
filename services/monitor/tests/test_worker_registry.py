"""Who is there, who said good-bye, and who went without a word."""

from __future__ import annotations

import msgspec
import pytest

from reverie_jobs.backends import backend_of
from reverie_jobs.mirror import WorkerMirror
from reverie_monitor.workers import WorkerRegistry
from reverie_protocol.jobs import ModeInfo, Worker, WorkerState
from reverie_runtime.bus.port import Entry
from reverie_testing.clock import VirtualClock


class Bench:
    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.mirror = WorkerMirror()
        self.registry = WorkerRegistry(self.mirror, clock=clock, connected=True)
        self._revision = 0

    def beat(self, name: str = "painter", incarnation: str = "1", **fields: object) -> None:
        record = {"service": "inference", "state": WorkerState.READY, **fields}
        worker = Worker(name=name, incarnation=incarnation, **record)
        self._entry(f"{name}.{incarnation}", msgspec.json.encode(worker))

    def removed(self, key: str = "painter.1") -> None:
        self._entry(key, None)

    def _entry(self, key: str, value: bytes | None) -> None:
        self._revision += 1
        self.mirror.apply(Entry(key=key, value=value, revision=self._revision))


@pytest.fixture
def bench(virtual_clock: VirtualClock) -> Bench:
    return Bench(virtual_clock)


async def test_a_worker_that_beats_is_there_and_its_silence_is_counted(bench: Bench) -> None:
    bench.beat()
    assert [worker.name for worker in bench.registry.ready()] == ["painter"]
    await bench.clock.advance(7.0)
    assert bench.registry.alive() == []
    assert bench.registry.silence() == {"painter": 7.0}
    bench.beat()
    assert bench.registry.silence() == {"painter": 0.0}


async def test_a_worker_that_withdraws_its_record_is_not_missed(bench: Bench) -> None:
    bench.beat(state=WorkerState.DRAINING)
    await bench.clock.advance(1.0)
    bench.removed()
    await bench.clock.advance(60.0)
    assert bench.registry.silence() == {}


async def test_a_record_that_expires_long_after_the_last_beat_was_no_good_bye(bench: Bench) -> None:
    bench.beat()
    await bench.clock.advance(30.0)
    bench.removed()
    assert bench.registry.silence() == {"painter": 30.0}


async def test_a_worker_that_comes_back_with_another_incarnation_is_the_same_worker(bench: Bench) -> None:
    bench.beat(incarnation="1")
    await bench.clock.advance(2.0)
    bench.beat(incarnation="2")
    bench.removed("painter.1")
    assert bench.registry.silence() == {"painter": 0.0}
    assert [worker.incarnation for worker in bench.registry.ready()] == ["2"]


async def test_nobody_is_silent_while_the_bus_is_away_or_just_back(bench: Bench) -> None:
    bench.beat()
    bench.registry.on_connection(False)
    await bench.clock.advance(60.0)
    assert bench.registry.silence() == {}
    bench.registry.on_connection(True)
    await bench.clock.advance(1.0)
    assert bench.registry.silence() == {"painter": 1.0}


async def test_a_worker_that_is_gone_for_an_hour_is_forgotten(bench: Bench) -> None:
    bench.beat()
    await bench.clock.advance(3601.0)
    assert bench.registry.silence() == {}


def test_a_worker_is_shown_as_the_backend_that_it_is(bench: Bench) -> None:
    bench.beat(modes={"b": ModeInfo(model="b"), "a": ModeInfo(model="a")}, running=("j1", "j2"), slots=4)
    backend = backend_of(bench.registry.alive()[0])
    assert (backend.name, backend.modes, backend.running, backend.slots) == ("painter", ("a", "b"), 2, 4)
