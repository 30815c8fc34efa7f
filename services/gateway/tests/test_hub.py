"""The hub: what becomes of mirror changes, progress and previews, without any bus."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from reverie_gateway.event_log import EventLog
from reverie_gateway.frame import payload_of
from reverie_gateway.hub import Hub
from reverie_gateway.identity import Identity
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.writer import Turn
from reverie_jobs.mirror import JobMirror
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType, Phase, Progress
from reverie_protocol.subjects import job_preview, job_progress
from reverie_runtime.bus.port import Entry, Message, SnapshotBegin, SnapshotEnd
from reverie_runtime.clock import SystemClock

JOB = Job(
    id="a",
    owner="me",
    type=JobType.GENERATE,
    state=JobState.QUEUED,
    params=GenerateParams(prompt="x"),
    created_at=1.0,
    enqueued_at=1.0,
    updated_at=1.0,
)
RUNNING = replace(JOB, state=JobState.RUNNING, attempt=1, worker="w.1")
DONE = replace(RUNNING, state=JobState.COMPLETED)


class Bench:
    def __init__(self) -> None:
        self.mirror = JobMirror()
        self.asked: list[str] = []
        turn = Turn(GatewayMetrics(CollectorRegistry()))
        log = EventLog(retention_s=60)
        self.hub = Hub(self.mirror, log, turn, on_watch=self.asked.append, clock=SystemClock())
        self.revision = 0

    def commit(self, job: Job | None, key: str = "a") -> None:
        self.revision += 1
        value = None if job is None else msgspec.json.encode(job)
        self.mirror.apply(Entry(key, value, self.revision))

    async def progress(self, step: int, attempt: int = 1, job_id: str = "a") -> None:
        told = Progress(
            job_id=job_id, attempt=attempt, phase=Phase.DENOISING, step=step, steps=4, progress=step / 4
        )
        self.hub.on_progress(Message(job_progress(job_id), msgspec.json.encode(told)))

    async def preview(self, picture: bytes) -> None:
        self.hub.on_preview(Message(job_preview("a"), picture))

    def session(self, owner: str = "me", *, admin: bool = False) -> Session:
        session = Session(Identity(owner, admin=admin), Outbox())
        self.hub.join(session)
        return session


def told(session: Session) -> list[str]:
    """Types and steps of what waits to go out."""
    lines = []
    for frame in session.outbox.take():
        message = json.loads(payload_of(frame))
        lines.append(f"{message['type']} {message.get('state', message.get('step', ''))}".strip())
    return lines


def waiting(session: Session) -> list[str | bytes]:
    """What waits to go out: types of messages, and pictures."""
    frames: list[str | bytes] = [json.loads(payload_of(frame))["type"] for frame in session.outbox.take()]
    while (picture := session.outbox.take_preview()) is not None:
        frames.append(payload_of(picture))
    return frames


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_progress_that_overtakes_its_claim_waits_for_it(bench) -> None:
    bench.commit(JOB)
    session = bench.session()
    await bench.progress(1)
    bench.commit(RUNNING)
    assert told(session) == ["job:state queued", "job:state running", "job:progress 1"]


async def test_progress_of_an_earlier_attempt_or_after_the_end_is_not_passed_on(bench) -> None:
    bench.commit(replace(RUNNING, attempt=2))
    session = bench.session()
    await bench.progress(1, attempt=2)
    await bench.progress(3, attempt=1)
    assert bench.hub.progress_of(bench.mirror.get("a")).step == 1
    bench.commit(replace(DONE, attempt=2))
    await bench.progress(4, attempt=2)
    await bench.progress(1, job_id="unknown")
    bench.hub.on_progress(Message(job_progress("a"), b"junk"))
    assert told(session) == ["job:state running", "job:complete"]


async def test_a_requeued_job_starts_from_nothing(bench) -> None:
    bench.commit(RUNNING)
    await bench.progress(3)
    bench.commit(replace(JOB, attempt=1))
    bench.commit(replace(RUNNING, attempt=2))
    assert bench.hub.progress_of(bench.mirror.get("a")) is None
    assert told(bench.session()) == ["job:state running"]


async def test_previews_are_passed_on_while_the_job_runs_and_to_its_owner_only(bench) -> None:
    bench.commit(JOB)
    mine, theirs = bench.session(), bench.session("they")
    mine.all_previews = theirs.all_previews = True
    await bench.preview(b"too early")
    assert waiting(mine) == ["job:state"]
    bench.commit(RUNNING)
    await bench.preview(b"in time")
    assert waiting(mine) == ["job:state", b"in time"]
    bench.commit(DONE)
    await bench.preview(b"too late")
    assert waiting(mine) == ["job:complete"]
    assert waiting(theirs) == []


async def test_workers_are_asked_for_previews_once_a_watched_job_runs(bench) -> None:
    bench.commit(JOB)
    session = bench.session()
    session.watch("a", enabled=True)
    bench.hub.interest_changed()
    assert bench.asked == []
    bench.commit(RUNNING)
    assert bench.asked == ["a"]
    assert list(bench.hub.watched()) == ["a"]
    bench.hub.leave(session)
    assert list(bench.hub.watched()) == []


@pytest.mark.parametrize("end", [DONE, None], ids=["ended", "purged"])
async def test_an_administrator_watches_anothers_job_until_it_is_over(bench, end) -> None:
    bench.commit(RUNNING)
    administrator = bench.session("root", admin=True)
    administrator.watch("a", enabled=True)
    await bench.preview(b"picture")
    assert list(bench.hub.watched()) == ["a"]
    bench.commit(end)
    assert not administrator.watches("a")
    assert waiting(administrator) == []


async def test_what_changed_while_the_bus_was_away_is_told_after_the_next_snapshot(bench) -> None:
    bench.mirror.apply(SnapshotBegin())
    bench.commit(RUNNING)
    bench.mirror.apply(SnapshotEnd(bench.revision))
    session = bench.session()
    bench.mirror.apply(SnapshotBegin())
    bench.commit(DONE)
    bench.mirror.apply(SnapshotEnd(bench.revision))
    assert told(session) == ["job:state running", "job:complete"]


async def test_the_present_is_told_in_the_order_of_revisions(bench) -> None:
    bench.commit(replace(JOB, id="b"), key="b")
    bench.commit(RUNNING)
    bench.commit(replace(JOB, id="c"), key="c")
    assert told(bench.session()) == ["job:state queued", "job:state running", "job:state queued"]


async def test_a_session_that_left_and_a_purged_record_are_no_news(bench) -> None:
    bench.commit(DONE)
    stays, leaves = bench.session(), bench.session()
    bench.hub.leave(leaves)
    bench.hub.leave(leaves)
    bench.commit(None)
    bench.commit(JOB)
    assert told(stays) == ["job:state queued"]
    assert told(leaves) == []
    assert len(bench.hub) == 1


def snapshot(bench: Bench, *jobs: Job, doubtful: int = 0) -> None:
    """The history that a gateway reads when it starts."""
    bench.mirror.hears_all = True
    bench.mirror.apply(SnapshotBegin("one"))
    for job in jobs:
        bench.commit(job, key=job.id)
    bench.mirror.apply(SnapshotEnd(bench.revision, doubtful))


async def recovered(bench: Bench, cursor: int) -> list[int] | None:
    """Revisions that a client with this cursor is told, None if it begins anew."""
    missed = await bench.hub.resume(Session(Identity("me"), Outbox()), cursor, "one")
    return None if missed is None else [event.seq for event in missed]


async def test_no_cursor_before_a_hole_in_a_jobs_own_count_is_recovered(bench) -> None:
    now = SystemClock().time()
    fresh = replace(JOB, updated_at=now)
    snapshot(bench, fresh, replace(fresh, id="b"), replace(fresh, id="b", job_seq=2))
    assert (await recovered(bench, 1), bench.hub.holes.seen) == ([2, 3], 0)
    bench.commit(replace(RUNNING, updated_at=now, job_seq=3))
    assert (await recovered(bench, 2), bench.hub.holes.seen) == (None, 1)
    bench.commit(replace(DONE, updated_at=now, job_seq=4))
    assert (await recovered(bench, 3), await recovered(bench, 4)) == (None, [5])


async def test_who_is_online_when_revisions_are_missed_has_to_come_back_and_begins_with_the_present(
    bench,
) -> None:
    snapshot(bench, JOB)
    session = bench.session()
    bench.revision += 1  # which never comes
    bench.commit(replace(RUNNING, job_seq=2))
    assert session.outbox.closing is not None
    assert session.outbox.closing.reconnect
    assert told(session) == ["job:state queued"]  # its cursor stays before the hole
    assert await recovered(bench, 1) is None


async def test_no_cursor_before_the_beginning_of_a_job_that_the_bucket_discarded_is_recovered(bench) -> None:
    snapshot(bench, JOB, replace(JOB, id="b", job_seq=30))
    bench.commit(RUNNING)
    assert (await recovered(bench, 1), await recovered(bench, 2)) == (None, [3])


async def test_no_cursor_before_what_the_mirror_does_not_vouch_for_is_recovered(bench) -> None:
    snapshot(bench, JOB, replace(JOB, id="b"), doubtful=2)
    assert (await recovered(bench, 1), await recovered(bench, 2)) == (None, [])
    bench.revision += 1  # which never comes
    bench.commit(replace(RUNNING, job_seq=2))
    bench.commit(replace(JOB, id="c"), key="c")
    assert (await recovered(bench, 3), await recovered(bench, 4)) == (None, [5])


async def test_the_story_of_a_job_ends_with_how_it_stands_also_where_the_log_has_it_not(bench) -> None:
    snapshot(bench, JOB, RUNNING)
    bench.mirror.hears_all = False
    bench.commit(None, key="x")
    late = bench.revision
    bench.mirror.apply(SnapshotBegin("one"))
    bench.mirror.apply(SnapshotEnd(late + 5))  # takes the job away, at a revision of its own
    bench.commit(replace(DONE, job_seq=3))
    story = bench.hub.story(bench.mirror.get("a"))
    assert [event.seq for event in story] == [1, 2, bench.revision]


async def test_a_client_that_names_no_epoch_is_not_told_of_a_bucket_that_is_no_more(bench) -> None:
    snapshot(bench, JOB)
    bench.commit(None)
    bench.mirror.apply(SnapshotBegin("two"))
    bench.mirror.apply(SnapshotEnd(0))
    assert await bench.hub.resume(Session(Identity("me"), Outbox()), 1, None) is None
