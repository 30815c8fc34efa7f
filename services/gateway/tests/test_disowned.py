"""Which submits that were answered with an error may not turn up later."""

from __future__ import annotations

import msgspec
import pytest

from reverie_gateway.disowned import Disowned
from reverie_jobs.mirror import JobMirror
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType
from reverie_runtime.bus.port import Entry


def job(**fields: str) -> Job:
    return Job(
        id="a",
        owner="me",
        type=JobType.GENERATE,
        state=JobState.QUEUED,
        params=GenerateParams(prompt="x"),
        created_at=0,
        enqueued_at=0,
        updated_at=0,
        **fields,
    )


@pytest.mark.parametrize(
    ("refused", "ghosts"),
    [(job(), 1), (job(idempotency_key="k"), 0), (job(retry_of="b"), 0)],
    ids=["a drawn id", "an idempotency key", "a retry"],
)
def test_a_job_that_its_second_try_finds_again_is_no_ghost(refused: Job, ghosts: int) -> None:
    mirror, seen = JobMirror(), []
    disowned = Disowned(mirror, on_ghost=seen.append)
    disowned.add(refused)
    mirror.apply(Entry("a", msgspec.json.encode(refused), 1))
    assert len(seen) == ghosts


def test_a_key_that_we_drew_ourselves_is_not_found_again() -> None:
    mirror, seen = JobMirror(), []
    disowned = Disowned(mirror, on_ghost=seen.append)
    refused = job(idempotency_key="drawn")
    disowned.add(refused, found_again=False)
    mirror.apply(Entry("a", msgspec.json.encode(refused), 1))
    assert [ghost.id for ghost in seen] == ["a"]
