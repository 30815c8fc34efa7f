"""A conversation that is interrupted at an inconvenient moment."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from reverie_gateway import session as sessions
from reverie_gateway.batches import submit_all
from reverie_gateway.conversation import Conversation
from reverie_gateway.event_log import EventLog
from reverie_gateway.frame import payload_of
from reverie_gateway.hub import Hub
from reverie_gateway.identity import LOCAL
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.writer import Turn
from reverie_jobs.mirror import JobMirror
from reverie_jobs.store import Stored, Submitted
from reverie_protocol.client_messages import JobPreview, JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType
from reverie_runtime.bus.port import Entry
from reverie_runtime.clock import SystemClock

RUNNING = Job(
    id="a",
    owner=LOCAL.owner,
    type=JobType.GENERATE,
    state=JobState.RUNNING,
    params=GenerateParams(prompt="x"),
    created_at=1.0,
    enqueued_at=1.0,
    updated_at=1.0,
)


class Shelf:
    """Jobs whose store answers what the test says, when the test says it."""

    def __init__(self) -> None:
        self.mirror = JobMirror()
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.disowned: list[str] = []
        self.fails: BaseException | None = None

    def draft(self, request: JobSubmit, *, owner: str) -> Job:
        return replace(RUNNING, owner=owner)

    def mirrored(self, job_id: str) -> Job | None:
        return self.mirror.get(job_id)

    async def find(self, job_id: str, *, by: object) -> Stored:
        """It ends while the answer is on its way."""
        ended = replace(RUNNING, state=JobState.COMPLETED)
        self.mirror.apply(Entry(job_id, msgspec.json.encode(ended), 1))
        return Stored(RUNNING, 0)

    async def submit(self, draft: Job) -> Submitted:
        if self.submitted and self.fails is not None:
            raise self.fails
        self.submitted.append(draft.id)
        return Submitted(Stored(draft, 1), existing=False)

    async def cancel(self, job_id: str, *, by: object) -> None:
        self.cancelled.append(job_id)

    def disown(self, draft: Job) -> None:
        self.disowned.append(draft.id)


def conversation(shelf: Shelf) -> tuple[Session, Conversation]:
    turn = Turn(GatewayMetrics(CollectorRegistry()))
    hub = Hub(shelf.mirror, EventLog(retention_s=60), turn, on_watch=lambda job_id: None, clock=SystemClock())
    session = Session(LOCAL, Outbox())
    return session, Conversation(
        session, jobs=cast(Any, shelf), hub=hub, texts=cast(Any, None), dream_desk=cast(Any, None)
    )


def answers(session: Session) -> list[dict[str, Any]]:
    return [json.loads(payload_of(frame)) for frame in session.outbox.take()]


async def test_a_job_that_ends_while_it_is_looked_for_is_not_watched() -> None:
    session, talk = conversation(Shelf())
    await talk.carry_out(JobPreview(id=1, job_id="a", enabled=True))
    (answer,) = answers(session)
    assert (answer["type"], answer["enabled"]) == ("job:preview:ok", False)
    assert not session.watches("a")


async def test_a_submit_that_could_not_be_watched_is_refused_before_there_is_a_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "MAX_WATCHED_JOBS", 1)
    shelf = Shelf()
    session, talk = conversation(shelf)
    session.watch("other", enabled=True)
    await talk.carry_out(JobSubmit(id=1, params=GenerateParams(prompt="x"), previews=True))
    assert [(answer["type"], answer["code"]) for answer in answers(session)] == [("error", "rate_limited")]
    assert shelf.submitted == []


@pytest.mark.parametrize(
    ("failure", "disowned"),
    [
        (ReverieError(ErrorCode.QUEUE_FULL, "full"), []),
        (ReverieError(ErrorCode.SERVICE_UNAVAILABLE, "away"), ["b"]),
        (RuntimeError("broken"), ["b"]),
        (asyncio.CancelledError(), ["b"]),
    ],
    ids=["refused", "away", "broken", "left"],
)
async def test_a_batch_that_is_not_taken_whole_leaves_no_job(
    failure: BaseException, disowned: list[str]
) -> None:
    shelf = Shelf()
    shelf.fails = failure
    drafts = [RUNNING, replace(RUNNING, id="b")]
    with pytest.raises(type(failure)):
        await submit_all(drafts, jobs=cast(Any, shelf), by=LOCAL, found_again=False)
    assert (shelf.submitted, shelf.cancelled, shelf.disowned) == (["a"], ["a"], disowned)
