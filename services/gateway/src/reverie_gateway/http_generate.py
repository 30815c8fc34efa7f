"""`POST /generate`: the synchronous endpoint that existing frontends speak, on top of the same jobs."""

from __future__ import annotations

from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency

from reverie_gateway.body import read_json
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import Objects
from reverie_gateway.settings import GatewaySettings
from reverie_gateway.synchronous import ended_job, picture_of, superres_headers, without_picture
from reverie_gateway.waiting import Waiters
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.jobs import GenerateParams, Job, JobState
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
    timeout_s = gateway_settings.generate_wait_s
    job = await ended_job(request, draft, jobs=jobs, waiters=waiters, timeout_s=timeout_s)
    if job.state is not JobState.COMPLETED:
        return without_picture(job, request)
    return await picture_of(job, objects, headers=_headers(job))


def _headers(job: Job) -> dict[str, object]:
    meta = job.meta
    if meta is None:
        return {}
    headers: dict[str, object] = {
        "X-Seed": meta.seed,
        "X-Mode": meta.mode,
        "X-SuperRes": int(meta.sr),
        "X-Backend": meta.backend,
    }
    if isinstance(job.params, GenerateParams) and job.params.superres:
        headers |= superres_headers(meta)
    return headers
