"""Mirrors: what they hold, and that they do not stand still unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from reverie_jobs import mirror as mirror_module
from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.store import JOBS
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType
from reverie_runtime.bus.memory import MemoryBus, MemoryServer
from reverie_runtime.bus.port import Bucket, Entry, SnapshotBegin, SnapshotEnd, WatchEvent

JOB = Job(
    id="j",
    owner="u",
    type=JobType.GENERATE,
    state=JobState.QUEUED,
    params=GenerateParams(prompt="p"),
    created_at=1,
    enqueued_at=1,
    updated_at=1,
)
RECORD = msgspec.json.encode(JOB)


class BreakingBucket:
    """A bucket whose first watch breaks by a fault after its snapshot, and the second one within it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.name = bucket.name
        self.watches = 0

    @asynccontextmanager
    async def watch(self, *, history: bool = False) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self.watches += 1
        async with self._bucket.watch(history=history) as events:
            yield self._broken(events) if self.watches <= 2 else events

    async def _broken(self, events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
        async for event in events:
            yield event
            if isinstance(event, SnapshotEnd) or self.watches == 2:
                raise OSError("a fault of ours")


async def test_a_mirror_whose_watch_broke_begins_anew_and_misses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror_module, "REWATCH_S", 0.0)
    bus = MemoryBus(MemoryServer())
    bucket = BreakingBucket(await bus.bucket(JOBS))
    mirror = JobMirror()
    seen = asyncio.Event()
    mirror.listen(lambda change: seen.set())
    async with follow(mirror, bucket):  # type: ignore[arg-type]  # only what a mirror uses
        await (await bus.bucket(JOBS)).put("j", RECORD)
        async with asyncio.timeout(60):
            await seen.wait()
    assert mirror.get("j") == JOB
    assert bucket.watches == 3


def test_in_a_bucket_made_anew_low_revisions_are_news() -> None:
    mirror = JobMirror()
    for event in (SnapshotBegin("one"), Entry("j", RECORD, 500), SnapshotEnd(500)):
        mirror.apply(event)
    for event in (SnapshotBegin("two"), SnapshotEnd(0), Entry("j", RECORD, 1)):
        mirror.apply(event)
    assert mirror.revision_of("j") == 1
    assert mirror.revision == 1


def test_a_record_that_nobody_can_read_does_not_stop_the_mirror() -> None:
    mirror = JobMirror()
    junk = (b"junk", b'{"id":"\xff"}', b"[" * 100_000)
    for event in (
        SnapshotBegin("one"),
        *(Entry(f"x{number}", value, number + 1) for number, value in enumerate(junk)),
        Entry("j", RECORD, 4),
        SnapshotEnd(4),
    ):
        mirror.apply(event)
    assert list(mirror.queued) == ["j"]


def test_a_job_whose_record_became_unreadable_is_not_acted_on() -> None:
    mirror = JobMirror()
    for event in (SnapshotBegin("one"), Entry("j", RECORD, 1), SnapshotEnd(1), Entry("j", b"newer", 2)):
        mirror.apply(event)
    assert not mirror.queued


def test_a_snapshot_takes_away_what_is_no_longer_there() -> None:
    mirror = JobMirror()
    for event in (SnapshotBegin("one"), Entry("j", RECORD, 1), SnapshotEnd(1)):
        mirror.apply(event)
    for event in (SnapshotBegin("one"), SnapshotEnd(5)):
        mirror.apply(event)
    assert mirror.get("j") is None
    assert not mirror.queued


def hearing_all(*events: WatchEvent) -> JobMirror:
    """A mirror that is told the whole history."""
    mirror = JobMirror()
    mirror.hears_all = True
    for event in events:
        mirror.apply(event)
    return mirror


WHOLE = (SnapshotBegin("one"), Entry("j", RECORD, 4), SnapshotEnd(5))


def test_a_mirror_that_heard_every_revision_in_order_vouches_for_all() -> None:
    mirror = hearing_all(*WHOLE, Entry("j", RECORD, 6), Entry("k", None, 7), Entry("j", RECORD, 8))
    assert (mirror.whole_since, mirror.gaps) == (0, 0)


@pytest.mark.parametrize(
    ("revision", "whole_since"), [(8, 7), (5, 5)], ids=["one was left out", "one came late"]
)
def test_a_live_revision_that_does_not_follow_the_last_one_is_noticed(
    revision: int, whole_since: int
) -> None:
    mirror = hearing_all(*WHOLE, Entry("k", RECORD, revision))
    assert (mirror.whole_since, mirror.gaps) == (whole_since, 1)
    mirror.apply(Entry("k", RECORD, mirror.revision + 1))
    assert (mirror.whole_since, mirror.gaps) == (whole_since, 1)


def test_a_mirror_vouches_for_nothing_before_a_doubtful_history_or_an_unreadable_record() -> None:
    doubtful = hearing_all(SnapshotBegin("one"), Entry("j", RECORD, 4), SnapshotEnd(5, doubtful=5))
    assert (doubtful.whole_since, doubtful.gaps) == (5, 1)
    doubtful.apply(SnapshotBegin("two"))  # revisions of another bucket
    assert doubtful.whole_since == 0
    assert hearing_all(*WHOLE, Entry("j", b"newer", 6)).whole_since == 6


async def test_only_who_follows_with_history_hears_all() -> None:
    bucket = await MemoryBus(MemoryServer()).bucket(JOBS)
    for history in (False, True):
        async with follow(JobMirror(), bucket, history=history) as mirror:
            assert mirror.hears_all is history
