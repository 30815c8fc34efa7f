"""Pause, resume and drain."""

from __future__ import annotations

import asyncio

import pytest

from reverie_jobs.controls import (
    CONTROLS,
    ControlMirror,
    change_controls,
    closed_lanes,
    patched,
    require_open,
)
from reverie_jobs.mirror import WORKERS, follow
from reverie_jobs.store import JOBS
from reverie_protocol.controls import Gate, QueueControl, QueueControlPatch
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import Lane
from reverie_protocol.subjects import BUCKETS
from reverie_runtime.bus.memory import MemoryBus, MemoryServer

PAUSED, DRAINING, OPEN = Gate(paused=True), Gate(draining=True), Gate()


def test_a_paused_queue_gives_no_worker_anything() -> None:
    assert closed_lanes(QueueControl(queue=PAUSED), worker="w") == frozenset(Lane)


def test_a_paused_lane_closes_only_itself() -> None:
    control = QueueControl(lanes={"batch": PAUSED, "normal": DRAINING})
    assert closed_lanes(control, worker="w") == {Lane.BATCH}


@pytest.mark.parametrize("gate", [PAUSED, DRAINING])
def test_a_paused_or_draining_worker_takes_nothing_while_others_go_on(gate: Gate) -> None:
    control = QueueControl(workers={"w": gate})
    assert closed_lanes(control, worker="w") == frozenset(Lane)
    assert closed_lanes(control, worker="x") == frozenset()


def test_a_draining_lane_refuses_new_jobs_and_says_so() -> None:
    control = QueueControl(lanes={"batch": DRAINING})
    require_open(control, Lane.NORMAL)
    with pytest.raises(ReverieError) as refused:
        require_open(control, Lane.BATCH)
    assert refused.value.code is ErrorCode.DRAINING
    assert refused.value.retry_after


def test_a_paused_lane_still_takes_new_jobs() -> None:
    require_open(QueueControl(queue=PAUSED, lanes={"normal": PAUSED}), Lane.NORMAL)


def test_a_patch_sets_what_it_names_and_resuming_leaves_nothing_behind() -> None:
    control = patched(QueueControl(), QueueControlPatch(lanes={"batch": PAUSED}, workers={"w": DRAINING}))
    control = patched(control, QueueControlPatch(lanes={"batch": OPEN}))
    assert control == QueueControl(workers={"w": DRAINING})


def test_an_unknown_lane_is_refused_naming_those_there_are() -> None:
    with pytest.raises(ReverieError, match="urgent, normal, batch, background"):
        patched(QueueControl(), QueueControlPatch(lanes={"fast": PAUSED}))


async def test_two_operators_at_once_both_get_their_way() -> None:
    bus = MemoryBus(MemoryServer())
    bucket = await bus.bucket(CONTROLS)
    patches = [QueueControlPatch(workers={f"w{number}": PAUSED}) for number in range(8)]
    mirror = ControlMirror()
    async with follow(mirror, bucket):
        await asyncio.gather(*(change_controls(bucket, patch) for patch in patches))
        seen = asyncio.Event()
        mirror.listen(lambda change: seen.set())
        last = await change_controls(bucket, QueueControlPatch(queue=PAUSED))
        await seen.wait()
        assert mirror.control == last
    assert set(last.workers) == {f"w{number}" for number in range(8)}


def test_the_buckets_are_made_as_the_protocol_says() -> None:
    declared = {bucket.name: (bucket.history, bucket.ttl_s, bucket.republish) for bucket in BUCKETS}
    for config in (JOBS, WORKERS, CONTROLS):
        assert declared[config.name] == (config.history, config.ttl_s, config.republish)
