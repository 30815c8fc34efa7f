"""`POST /generate`: the synchronous endpoint that existing frontends speak, on top of the same jobs."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency

from reverie_gateway.body import read_json
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import Objects, Span, header_text
from reverie_gateway.problem import job_url, problem, request_id_of
from reverie_gateway.settings import GatewaySettings
from reverie_gateway.waiting import Waiters
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import GenerateParams, Job, JobError, JobState
from reverie_protocol.parsing import parse_generate


@post("/generate", status_code=200)
async def generate(
    request: HttpRequest,
    jobs: NamedDependency[Jobs],
    waiters: NamedDependency[Waiters],
    objects: NamedDependency[Objects],
    gateway_settings: NamedDependency[GatewaySettings],
) -> Response[Any]:
    """One picture, in the answer.  The job goes on if the wait runs out or the client leaves."""
    params = parse_generate(await read_json(request))
    submit = JobSubmit(params=params, idempotency_key=idempotency_key_of(request))
    draft = jobs.draft(submit, owner=owner_of(request), must_run_now=True)
    with waiters.expect(draft.id) as ended:
        submitted = await jobs.submit(draft)
        job = submitted.stored.job
        if not job.state.terminal:
            job = await _wait(request, ended, job_id=job.id, timeout_s=gateway_settings.generate_wait_s)
    if job.state is not JobState.COMPLETED:
        return _without_picture(job, request_id_of(request))
    return await _picture(job, objects)


async def _wait(request: HttpRequest, ended: asyncio.Future[Job], *, job_id: str, timeout_s: float) -> Job:
    """The job's terminal record; `wait_timeout` with the job's address when the time is over.

    A client that has gone ends the wait in the same way, only that nobody reads the answer.
    """
    gone = asyncio.create_task(_disconnected(request), name="generate-client")
    try:
        either: set[asyncio.Future[Any]] = {ended, gone}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if ended.done():
        return ended.result()
    raise ReverieError(
        ErrorCode.WAIT_TIMEOUT,
        f"the picture was not ready within {timeout_s:g} s; the job goes on, see {job_url(job_id)}",
        job_id=job_id,
    )


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _without_picture(job: Job, request_id: str) -> Response[Any]:
    """A failed job answers with its own code, and is a 500 unless the request itself was the reason."""
    reason = job.error or JobError(ErrorCode.INTERNAL, "the job failed")
    known = reason.code in ErrorCode.__members__.values()
    error = ReverieError(
        ErrorCode(reason.code) if known else ErrorCode.INTERNAL, reason.message, job_id=job.id
    )
    ours = job.state is JobState.FAILED and error.code not in _REQUEST_WAS_WRONG
    return problem(error, request_id, status=HTTPStatus.INTERNAL_SERVER_ERROR if ours else None)


#: What only the worker can find out about a request: its model's sizes, its scheduler's steps.
_REQUEST_WAS_WRONG = frozenset(
    {
        ErrorCode.INVALID_FIELD,
        ErrorCode.MODE_NOT_FOUND,
        ErrorCode.STYLE_NOT_FOUND,
        ErrorCode.SUPERRES_DISABLED,
        ErrorCode.DEADLINE_EXCEEDED,
    }
)


async def _picture(job: Job, objects: Objects) -> Response[Any]:
    if not job.outputs:
        raise ReverieError(ErrorCode.INVALID_OUTPUT, "the job ended without a picture", job_id=job.id)
    found = await objects.stat(job.outputs[0].key)
    headers = {name: header_text(value) for name, value in _headers(job).items()}
    return await objects.stream(found, Span(0, found.size_bytes), headers=headers)


def _headers(job: Job) -> dict[str, object]:
    headers: dict[str, object] = {
        "Cache-Control": "no-store",
        "X-LCM-Image-Key": job.outputs[0].key,
        "X-Job-Id": job.id,
    }
    meta = job.meta
    if meta is None:
        return headers
    headers |= {
        "X-Seed": meta.seed,
        "X-Mode": meta.mode,
        "X-SuperRes": int(meta.sr),
        "X-Backend": meta.backend,
    }
    if isinstance(job.params, GenerateParams) and job.params.superres:
        headers |= {
            "X-SR-Model": meta.sr_model,
            "X-SR-Passes": meta.sr_passes,
            "X-SR-Scale-Per-Pass": meta.sr_scale_per_pass,
            "X-SR-Format": meta.sr_format,
        }
    return headers
