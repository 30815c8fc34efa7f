"""A job that an HTTP request waits for, and the picture that answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

from litestar import Response

from reverie_gateway.batches import submit_all
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, identity_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import Objects, Span, header_text
from reverie_gateway.problem import job_url, problem, request_id_of
from reverie_gateway.waiting import Waiters
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import Job, JobError, JobMeta, JobState, Output
from reverie_storage.port import StoredObject


async def ended_job(
    request: HttpRequest, draft: Job, *, jobs: Jobs, waiters: Waiters, timeout_s: float
) -> Job:
    """Submit a drafted job and wait for its terminal record; it goes on if the wait runs out or the client leaves.

    `wait_timeout` with the job's address when the time is over.
    """
    return (await ended_jobs(request, [draft], jobs=jobs, waiters=waiters, timeout_s=timeout_s))[0]


async def ended_jobs(
    request: HttpRequest, drafts: Sequence[Job], *, jobs: Jobs, waiters: Waiters, timeout_s: float
) -> list[Job]:
    """The same for several, in their order; `wait_timeout` names all of them."""
    with ExitStack() as stack:
        ends = [stack.enter_context(waiters.expect(draft.id)) for draft in drafts]
        made = await submit_all(
            drafts,
            jobs=jobs,
            by=identity_of(request),
            found_again=idempotency_key_of(request) is not None,
        )
        waited = [end for job, end in zip(made, ends, strict=True) if not job.state.terminal]
        if waited and not await _all_end(request, waited, timeout_s=timeout_s):
            raise not_in_time(made, ends, timeout_s=timeout_s)
        return [job if job.state.terminal else end.result() for job, end in zip(made, ends, strict=True)]


def not_in_time(
    made: Sequence[Job], ends: Sequence[asyncio.Future[Job]], *, timeout_s: float
) -> ReverieError:
    """Jobs that were waited for long enough; the first of those that go on is the one named."""
    going = [job.id for job, end in zip(made, ends, strict=True) if not (job.state.terminal or end.done())]
    job_id = going[0] if going else made[0].id
    pictures = "the picture was" if len(made) == 1 else "the pictures were"
    return ReverieError(
        ErrorCode.WAIT_TIMEOUT,
        f"{pictures} not ready within {timeout_s:g} s; the job goes on, see {job_url(job_id)}",
        job_id=job_id,
        job_ids=[job.id for job in made] if len(made) > 1 else (),
    )


async def _all_end(request: HttpRequest, ends: Sequence[asyncio.Future[Job]], *, timeout_s: float) -> bool:
    """Whether all of them end in time.

    A client that has gone ends the wait in the same way, only that nobody reads the answer.
    """
    together = asyncio.gather(*ends)
    gone = asyncio.create_task(_disconnected(request), name="generate-client")
    try:
        either: set[asyncio.Future[Any]] = {together, gone}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if together.done():
        together.result()
        return True
    together.add_done_callback(_retrieve)
    return False


def _retrieve(ends: asyncio.Future[Any]) -> None:
    """Nobody waits for these any more."""
    if not ends.cancelled():
        ends.exception()


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def failure_of(job: Job) -> ReverieError:
    """Why a job did not complete; a code that this gateway does not know is `internal`."""
    reason = job.error or JobError(ErrorCode.INTERNAL, "the job failed")
    known = reason.code in ErrorCode.__members__.values()
    return ReverieError(
        ErrorCode(reason.code) if known else ErrorCode.INTERNAL, reason.message, job_id=job.id
    )


def without_picture(job: Job, request: HttpRequest, *, beside: Sequence[Job] = ()) -> Response[Any]:
    """A failed job answers with its own code, and is a 500 unless the request itself was the reason.

    `beside` are all jobs of a request that made several.
    """
    error = failure_of(job)
    error.job_ids = tuple(each.id for each in beside)
    ours = job.state is JobState.FAILED and error.code not in _REQUEST_WAS_WRONG
    status = HTTPStatus.INTERNAL_SERVER_ERROR if ours else None
    return problem(error, request_id_of(request), status=status, path=request.scope["path"])


#: What only the worker can find out about a request: its model's sizes, its scheduler's steps.
_REQUEST_WAS_WRONG = frozenset(
    {
        ErrorCode.INVALID_FIELD,
        ErrorCode.MODE_NOT_FOUND,
        ErrorCode.STYLE_NOT_FOUND,
        ErrorCode.SUPERRES_DISABLED,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.FILE_NOT_FOUND,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        ErrorCode.INVALID_UPLOAD,
    }
)


async def picture_of(job: Job, objects: Objects, *, headers: Mapping[str, object]) -> Response[Any]:
    """The picture of a completed job, never cached, with its key and its job's id beside other headers."""
    (found,) = await pictures_of([job], objects)
    own = {"Cache-Control": "no-store", "X-LCM-Image-Key": found.key, "X-Job-Id": job.id}
    texts = {name: header_text(value) for name, value in (own | dict(headers)).items()}
    return await objects.stream(found, Span(0, found.size_bytes), headers=texts)


async def pictures_of(jobs: Sequence[Job], objects: Objects) -> list[StoredObject]:
    """The stored pictures of completed jobs; `invalid_output` where one has none."""
    for job in jobs:
        if not job.outputs:
            raise ReverieError(ErrorCode.INVALID_OUTPUT, "the job ended without a picture", job_id=job.id)
    return [_described(job.outputs[0], job) or await objects.stat(job.outputs[0].key) for job in jobs]


def _described(output: Output, job: Job) -> StoredObject | None:
    """What the record says of an object, which saves asking the store; None if it does not say its size."""
    if not output.bytes or job.finished_at is None:
        return None
    at = job.finished_at
    return StoredObject(output.key, output.bytes, output.content_type, created_at=at, used_at=at)


def superres_headers(meta: JobMeta) -> dict[str, object]:
    """What super-resolution did."""
    return {
        "X-SR-Model": meta.sr_model,
        "X-SR-Passes": meta.sr_passes,
        "X-SR-Scale-Per-Pass": meta.sr_scale_per_pass,
        "X-SR-Format": meta.sr_format,
    }
