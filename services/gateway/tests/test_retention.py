"""Jobs that ended long ago are forgotten; all others are not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reverie_gateway.retention import MARGIN_S, Janitor, expired
from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType
from reverie_runtime.bus.memory import MemoryBus, MemoryServer

HOUR = 3600.0


def job(name: str, state: JobState, finished_at: float | None = None) -> Job:
    return Job(
        id=name,
        owner="local",
        type=JobType.GENERATE,
        state=state,
        params=GenerateParams(prompt="x"),
        created_at=0.0,
        enqueued_at=0.0,
        updated_at=0.0,
        finished_at=finished_at,
    )


@pytest.mark.parametrize("state", [state for state in JobState if state.terminal])
def test_a_job_is_kept_for_its_retention_after_its_end(state) -> None:
    ended = job("a", state, finished_at=1000.0)
    assert not expired(ended, now=1000.0 + HOUR, retention_s=HOUR)
    assert expired(ended, now=1001.0 + HOUR, retention_s=HOUR)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_a_job_that_is_not_over_is_never_forgotten(state) -> None:
    waiting = replace(job("a", state), finished_at=0.0)
    assert not expired(waiting, now=1e12, retention_s=HOUR)


async def test_the_janitor_forgets_just_the_old_ones_and_does_so_again_later(virtual_clock) -> None:
    bus = MemoryBus(MemoryServer())
    bucket = await bus.bucket(JOBS)
    store, mirror = JobStore(bucket, new_op=iter("abcdefgh").__next__), JobMirror()
    now = virtual_clock.time()
    async with follow(mirror, bucket):
        for name, state, ended in (
            ("old", JobState.COMPLETED, now - 2 * HOUR),
            ("recent", JobState.FAILED, now - HOUR - MARGIN_S + 90),
            ("waiting", JobState.QUEUED, None),
        ):
            await store.submit(job(name, state, ended))
        await virtual_clock.settle()
        assert {kept.id for kept in mirror} == {"old", "recent", "waiting"}
        async with Janitor(store, mirror, clock=virtual_clock, retention_s=HOUR).run():
            await virtual_clock.settle()
            assert {kept.id for kept in mirror} == {"recent", "waiting"}
            await virtual_clock.advance(130)
            assert {kept.id for kept in mirror} == {"waiting"}
