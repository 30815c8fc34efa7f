"""The store against a real nats-server, also when replies are lost or writes come late."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from functools import partial

import pytest
from msgspec.structs import replace

from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.submission import new_job
from reverie_jobs.transitions import Claim, Refused, Superseded, claim, complete, request_cancel
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, Job, JobState, Output
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bucket, Bus, Entry, RevisionConflict, WriteUncertain
from reverie_testing.nats_server import NatsServer

OUTPUT = Output(url="/storage/k", key="k")


class LossyBucket:
    """The real bucket behind a wire that loses replies: the write is done before, or after, the caller hears."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.lose_next_reply = False
        self.delay_next_write = False
        self._late: list[asyncio.Task[int]] = []

    async def create(self, key: str, value: bytes) -> int:
        return await self._write(partial(self._bucket.create, key, value))

    async def update(self, key: str, value: bytes, revision: int) -> int:
        return await self._write(partial(self._bucket.update, key, value, revision))

    async def _write(self, write: partial) -> int:  # type: ignore[type-arg]  # create and update alike
        if self.delay_next_write:
            self.delay_next_write = False
            self.ghost = write
            raise WriteUncertain("the reply was lost, the write is still on its way")
        revision = await write()
        if self.lose_next_reply:
            self.lose_next_reply = False
            raise WriteUncertain("the reply was lost, the write is done")
        return revision

    async def get(self, key: str) -> Entry | None:
        return await self._bucket.get(key)

    async def history(self, key: str) -> list[Entry]:
        return await self._bucket.history(key)


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await connect_nats(nats_server.url, name="test")
    yield connected
    await connected.close()


@pytest.fixture
async def wire(bus: Bus) -> LossyBucket:
    return LossyBucket(await bus.bucket(JOBS))


@pytest.fixture
def store(wire: LossyBucket) -> JobStore:
    numbers = itertools.count()
    return JobStore(wire, new_op=lambda: f"op{next(numbers)}")  # type: ignore[arg-type]  # no watch needed


def job(key: str | None = None, prompt: str = "p", owner: str = "u") -> Job:
    bits = itertools.count(1)
    submit = JobSubmit(params=GenerateParams(prompt=prompt), idempotency_key=key)
    return new_job(submit, owner=owner, now=1.0, random_bits=lambda _: next(bits))


async def test_a_submitted_job_is_there_with_its_revision(store: JobStore) -> None:
    submitted = await store.submit(job())
    found = await store.get(submitted.stored.job.id)
    assert found == submitted.stored
    assert not submitted.existing


async def test_a_repeated_submit_finds_the_first_one(store: JobStore) -> None:
    first = await store.submit(job("key"))
    again = await store.submit(job("key"))
    assert again.existing
    assert again.stored == first.stored


async def test_the_same_key_with_another_body_is_a_conflict_and_leaves_the_first_alone(
    store: JobStore,
) -> None:
    first = await store.submit(job("key"))
    with pytest.raises(ReverieError) as refused:
        await store.submit(job("key", prompt="other"))
    assert refused.value.code is ErrorCode.IDEMPOTENCY_CONFLICT
    assert await store.get(first.stored.job.id) == first.stored


async def test_two_owners_may_use_the_same_key(store: JobStore) -> None:
    first = await store.submit(job("key", owner="alice"))
    second = await store.submit(job("key", owner="bob"))
    assert first.stored.job.id != second.stored.job.id
    assert not second.existing


async def test_a_submit_whose_reply_was_lost_is_found_to_be_done(store: JobStore, wire: LossyBucket) -> None:
    wire.lose_next_reply = True
    submitted = await store.submit(job())
    assert not submitted.existing
    assert len(await store.history(submitted.stored.job.id)) == 1


async def test_a_transition_whose_reply_was_lost_is_made_once(store: JobStore, wire: LossyBucket) -> None:
    id_ = (await store.submit(job())).stored.job.id
    wire.lose_next_reply = True
    claimed = await store.apply(id_, partial(claim, worker="w.1", now=2))
    assert (claimed.job.state, claimed.job.attempt) == (JobState.RUNNING, 1)
    assert [past.job.attempt for past in await store.history(id_)] == [0, 1]


async def test_a_write_that_comes_late_never_takes_effect_beside_its_repetition(
    store: JobStore, wire: LossyBucket
) -> None:
    id_ = (await store.submit(job())).stored.job.id
    wire.delay_next_write = True
    claimed = await store.apply(id_, partial(claim, worker="w.1", now=2))
    with pytest.raises(RevisionConflict):
        await wire.ghost()
    assert await store.get(id_) == claimed
    assert claimed.job.attempt == 1


async def test_of_many_workers_exactly_one_gets_the_job(store: JobStore) -> None:
    id_ = (await store.submit(job())).stored.job.id

    async def try_claim(worker: str) -> bool:
        try:
            held = await store.apply(id_, partial(claim, worker=worker, now=2))
        except Refused:
            return False
        return held.job.worker == worker

    won = await asyncio.gather(*(try_claim(f"w.{number}") for number in range(20)))
    assert won.count(True) == 1


async def test_a_finish_and_a_cancel_at_once_end_in_one_terminal_state(store: JobStore) -> None:
    for number in range(20):
        created = await store.submit(replace(job(), id=f"j{number}"))
        id_ = created.stored.job.id
        await store.apply(id_, partial(claim, worker="w.1", now=2))
        held = Claim(id_, "w.1", 1)
        finish = partial(complete, held=held, outputs=[OUTPUT], meta=None, now=3)
        await asyncio.gather(store.apply(id_, finish), store.apply(id_, partial(request_cancel, now=3)))
        states = [past.job.state for past in await store.history(id_)]
        assert sum(state.terminal for state in states) == 1
        assert states[-1].terminal


async def test_a_superseded_worker_writes_nothing(store: JobStore) -> None:
    id_ = (await store.submit(job())).stored.job.id
    claimed = await store.apply(id_, partial(claim, worker="w.1", now=2))
    stale = Claim(id_, "w.1", 7)
    with pytest.raises(Superseded):
        await store.apply(id_, partial(complete, held=stale, outputs=[OUTPUT], meta=None, now=3))
    assert await store.get(id_) == claimed


async def test_moving_a_job_that_is_not_there_says_so(store: JobStore) -> None:
    with pytest.raises(ReverieError) as refused:
        await store.apply("nope", partial(request_cancel, now=1))
    assert refused.value.code is ErrorCode.JOB_NOT_FOUND


async def test_a_mirror_hears_every_transition_in_order_although_the_server_was_killed(
    bus: Bus, store: JobStore, nats_server: NatsServer
) -> None:
    heard: list[tuple[str, int]] = []
    mirror = JobMirror()
    mirror.listen(lambda change: heard.append((change.record.state, change.record.job_seq)))
    async with follow(mirror, await bus.bucket(JOBS)):
        id_ = (await store.submit(job())).stored.job.id
        await store.apply(id_, partial(claim, worker="w.1", now=2))
        nats_server.kill()
        nats_server.start()
        done = asyncio.Event()
        mirror.listen(lambda change: done.set() if change.record.state.terminal else None)
        finish = partial(complete, held=Claim(id_, "w.1", 1), outputs=[OUTPUT], meta=None, now=3)
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.apply(id_, finish)
                    break
                except Superseded:
                    break
                except Exception:
                    await asyncio.sleep(0.01)
            await done.wait()
    assert heard == [("queued", 1), ("running", 2), ("completed", 3)]
