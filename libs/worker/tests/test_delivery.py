"""What a worker writes in the end, on a real server."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

from reverie_jobs.store import JOBS, JobStore
from reverie_jobs.transitions import claim, complete
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType, Output
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.clock import SystemClock
from reverie_storage.filesystem import FilesystemStorage
from reverie_testing.nats_server import NatsServer
from reverie_worker.assignment import Assignment
from reverie_worker.delivery import Delivery

WORKER = "worker.1"


async def test_a_result_that_no_record_can_hold_fails_its_job_instead_of_being_tried_for_ever(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    bus = await connect_nats(nats_server.url, name="test")
    try:
        numbers = itertools.count()
        store = JobStore(await bus.bucket(JOBS), new_op=lambda: str(next(numbers)))
        await store.submit(
            Job(
                id="j",
                owner="u",
                type=JobType.GENERATE,
                state=JobState.QUEUED,
                params=GenerateParams(prompt="p"),
                created_at=1,
                enqueued_at=1,
                updated_at=1,
            )
        )
        running = await store.apply("j", partial(claim, worker=WORKER, now=2.0))
        assignment = Assignment(running.job, WORKER)
        delivery = Delivery(store, FilesystemStorage(tmp_path), clock=SystemClock())
        outputs = tuple(Output(url="/", key=str(number), filename="x" * 20_000) for number in range(100))
        change = partial(complete, held=assignment.claim, outputs=outputs, meta=None)
        assert await delivery._commit(assignment, change) == JobState.FAILED
        stored = await store.get("j")
        assert stored is not None
        assert stored.job.error is not None
        assert stored.job.error.code == ErrorCode.INTERNAL
    finally:
        await bus.close()
