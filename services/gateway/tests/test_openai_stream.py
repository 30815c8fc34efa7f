"""Pictures in an event stream while the store breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, cast

import pytest

from reverie_gateway.identity import LOCAL, STATE_KEY
from reverie_gateway.openai_stream import EventStream
from reverie_jobs.store import Stored, Submitted
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, Job, JobState, JobType, Output
from reverie_storage.port import StoredObject

DONE = Job(
    id="a",
    owner=LOCAL.owner,
    type=JobType.GENERATE,
    state=JobState.COMPLETED,
    params=GenerateParams(prompt="x"),
    created_at=1.0,
    enqueued_at=1.0,
    updated_at=1.0,
    outputs=(Output(url="/storage/k", key="k", content_type="image/png", width=8, height=8),),
)


class BreakingObjects:
    """A store that can be read up to a chunk."""

    def __init__(self, readable: int) -> None:
        self._readable = readable

    async def stat(self, key: str) -> StoredObject:
        return cast(StoredObject, key)

    async def chunks(self, found: StoredObject) -> AsyncIterator[bytes]:
        for _ in range(self._readable):
            yield b"abc"
        raise ReverieError(ErrorCode.STORAGE_UNAVAILABLE, "it broke")


class EndedJobs:
    """All that is submitted has ended."""

    async def submit(self, draft: Job) -> Submitted:
        return Submitted(Stored(draft, 1), existing=True)


class Waiters:
    """Waits for nothing."""

    def expect(self, job_id: str) -> nullcontext[asyncio.Future[Job]]:
        return nullcontext(asyncio.get_running_loop().create_future())


class Request:
    """Nobody in particular asks."""

    def __init__(self) -> None:
        self.scope = {"state": {STATE_KEY: LOCAL}}
        self.headers: dict[str, str] = {}


def pieces(readable: int) -> AsyncIterator[bytes]:
    stream = EventStream(
        [DONE],
        partial_images=0,
        edit=False,
        objects=cast(Any, BreakingObjects(readable)),
        timeout_s=20.0,
    )
    anything: dict[str, Any] = {"jobs": EndedJobs(), "waiters": Waiters(), "hub": None}
    return stream._pieces(cast(Any, Request()), **anything)


async def test_a_picture_that_cannot_be_read_is_an_error_event_of_its_own() -> None:
    sent = [piece async for piece in pieces(readable=0)]
    assert len(sent) == 2
    assert sent[1].startswith(b"event: error\ndata: ")
    assert sent[1].endswith(b"\n\n")


async def test_a_picture_that_breaks_off_ends_the_connection_and_not_in_another_event() -> None:
    sent = pieces(readable=2)
    begun = [await anext(sent) for _ in range(3)]
    with pytest.raises(ReverieError, match="it broke"):
        await anext(sent)
    assert b"error" not in b"".join(begun)
