"""Events of OpenAI's images API: pictures of the way while they are denoised, then the pictures."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

import msgspec
from litestar.response import Stream

from reverie_gateway.base64_pictures import encoded
from reverie_gateway.batches import submit_all
from reverie_gateway.hub import Hub
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, identity_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import Objects
from reverie_gateway.openai_errors import openai_error
from reverie_gateway.synchronous import failure_of, not_in_time, pictures_of
from reverie_gateway.waiting import Waiters
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import Job, JobState
from reverie_protocol.openai_bodies import EditCompleted, EditPartial, ImageCompleted, ImagePartial
from reverie_protocol.preview import decode_preview

#: A comment goes out after this much silence, in seconds.
KEEPALIVE_S: Final = 15.0
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_HOLE: Final = b'"b64_json":""'


class EventStream:
    """The events of one request's jobs; of each at most `partial_images` previews, spread over its steps."""

    def __init__(
        self,
        drafts: Sequence[Job],
        *,
        partial_images: int,
        edit: bool,
        objects: Objects,
        timeout_s: float,
    ) -> None:
        self._drafts = drafts
        self._wanted = partial_images
        self._edit = edit
        self._objects = objects
        self._timeout_s = timeout_s
        self._told = dict.fromkeys((draft.id for draft in drafts), 0)
        #: At most `partial_images` for each job.
        self._partials: list[bytes] = []
        self._news = asyncio.Event()
        self._within_event = False

    async def begin(self, request: HttpRequest, *, jobs: Jobs, waiters: Waiters, hub: Hub) -> Stream:
        """Submit the jobs, or raise what refuses them; then the answer, whose events follow."""
        pieces = self._pieces(request, jobs=jobs, waiters=waiters, hub=hub)
        first = await anext(pieces)
        return Stream(_chain(first, pieces), media_type="text/event-stream", headers=_HEADERS)

    async def _pieces(
        self, request: HttpRequest, *, jobs: Jobs, waiters: Waiters, hub: Hub
    ) -> AsyncIterator[bytes]:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        with ExitStack() as stack:
            ends = [stack.enter_context(waiters.expect(draft.id)) for draft in self._drafts]
            for draft, end in zip(self._drafts, ends, strict=True):
                end.add_done_callback(lambda _: self._news.set())
                if self._wanted:
                    stack.callback(hub.view(draft.id, partial(self._on_preview, draft.id)))
            made = await submit_all(
                self._drafts,
                jobs=jobs,
                by=identity_of(request),
                found_again=idempotency_key_of(request) is not None,
            )
            for job, end in zip(made, ends, strict=True):
                if job.state.terminal and not end.done():  # a repetition
                    end.set_result(job)
            yield b": the jobs are made\n\n"
            try:
                async for piece in self._until_done(made, ends, deadline=deadline):
                    yield piece
            except ReverieError as error:
                if self._within_event:
                    raise  # half an event has gone out: only the end of the connection can tell that now
                yield _failure(error)

    async def _until_done(
        self, made: Sequence[Job], ends: Sequence[asyncio.Future[Job]], *, deadline: float
    ) -> AsyncIterator[bytes]:
        going = list(ends)
        while going:
            if not await self._wait(deadline):
                if asyncio.get_running_loop().time() >= deadline:
                    raise not_in_time(made, ends, timeout_s=self._timeout_s)
                yield b": alive\n\n"
            partials, self._partials = self._partials, []
            for event in partials:
                yield event
            for end in [end for end in going if end.done()]:
                going.remove(end)
                async for piece in self._completed(end.result()):
                    yield piece

    async def _wait(self, deadline: float) -> bool:
        """Whether there is news before the deadline, or before it is time for a sign of life."""
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + KEEPALIVE_S)):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def _on_preview(self, job_id: str, frame: bytes) -> None:
        header, picture = decode_preview(frame)
        number = self._told[job_id]
        if number >= self._wanted or header.step * (self._wanted + 1) < header.steps * (number + 1):
            return
        self._told[job_id] += 1
        event = (EditPartial if self._edit else ImagePartial)(
            b64_json=b64encode(picture).decode(),
            created_at=int(self._drafts[0].created_at),
            size=f"{header.width}x{header.height}",
            output_format=header.content_type.partition("/")[2],
            job_id=job_id,
            partial_image_index=number,
        )
        kind = str(type(event).__struct_config__.tag)
        self._partials.append(_named(kind, msgspec.json.encode(event)))
        self._news.set()

    async def _completed(self, job: Job) -> AsyncIterator[bytes]:
        if job.state is not JobState.COMPLETED:
            raise failure_of(job)
        (found,) = await pictures_of([job], self._objects)
        output = job.outputs[0]
        event = (EditCompleted if self._edit else ImageCompleted)(
            b64_json="",
            created_at=int(job.finished_at or job.updated_at),
            size=f"{output.width}x{output.height}",
            output_format=output.content_type.partition("/")[2],
            job_id=job.id,
            seed=job.meta.seed if job.meta else 0,
        )
        head, _, tail = msgspec.json.encode(event).partition(_HOLE)
        pieces = encoded(self._objects, found)
        first = await anext(pieces, b"")  # a store that cannot be read is told before the event begins
        self._within_event = True
        yield _opening(str(type(event).__struct_config__.tag)) + head + _HOLE[:-1] + first
        async for piece in pieces:
            yield piece
        yield _HOLE[-1:] + tail + b"\n\n"
        self._within_event = False


def _failure(error: ReverieError) -> bytes:
    """The jobs that go on are named, as in any other error."""
    told = {
        "type": "error",
        "error": openai_error(error, error.status),
        "jobId": error.job_id,
        "jobIds": error.job_ids,
    }
    return _named("error", msgspec.json.encode(told))


def _opening(kind: str) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: "


def _named(kind: str, data: bytes) -> bytes:
    return _opening(kind) + data + b"\n\n"


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
