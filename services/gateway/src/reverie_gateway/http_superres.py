"""`POST /superres` and `POST /v1/superres`: a picture in, the same picture larger in the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency
from msgspec.structs import replace

from reverie_gateway.form_bytes import FormBytes
from reverie_gateway.forms import received_form
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.inputs import require_enlargeable
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import Objects, available
from reverie_gateway.settings import GatewaySettings
from reverie_gateway.synchronous import ended_job, failure_of, picture_of, superres_headers, without_picture
from reverie_gateway.waiting import Waiters
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import Job, JobState, SuperResolutionParams
from reverie_protocol.validation import validate
from reverie_storage.uploads import Uploads

_FIELDS = ("magnitude", "out_format", "quality")
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
#: Stands for the picture while it has not arrived.
_NOT_YET = "not-yet"


@post(["/superres", "/v1/superres"], status_code=200, request_max_body_size=None)
async def superres(
    request: HttpRequest,
    *,
    jobs: NamedDependency[Jobs],
    waiters: NamedDependency[Waiters],
    objects: NamedDependency[Objects],
    uploads: NamedDependency[Uploads],
    gateway_settings: NamedDependency[GatewaySettings],
    form_bytes: NamedDependency[FormBytes],
) -> Response[Any]:
    """Enlarge a picture; the job goes on if the wait runs out or the client leaves."""
    owner = owner_of(request)
    # Before the picture is read: there may be nobody who could enlarge it.
    jobs.draft(JobSubmit(params=SuperResolutionParams(_NOT_YET)), owner=owner, must_run_now=True)
    async with received_form(request, form_bytes=form_bytes, fields=_FIELDS) as form, available():
        given = read_fields(form.fields)
        upload = await uploads.keep(form.file, owner=owner)
    with _as_400():
        require_enlargeable(given, upload)
    params = replace(given, fileRef=upload.key)
    submit = JobSubmit(params=params, idempotency_key=idempotency_key_of(request))
    draft = jobs.draft(submit, owner=owner, must_run_now=True)
    timeout_s = gateway_settings.generate_wait_s
    job = await ended_job(request, draft, jobs=jobs, waiters=waiters, timeout_s=timeout_s)
    if job.state is JobState.COMPLETED:
        return await picture_of(job, objects, headers=_headers(job, params))
    error = failure_of(job)
    if error.code is ErrorCode.INVALID_FIELD:  # only the worker knows what its network multiplies by
        raise ReverieError(ErrorCode.INVALID_UPLOAD, error.message, job_id=job.id)
    return without_picture(job, request)


def read_fields(fields: Mapping[str, str]) -> SuperResolutionParams:
    """The parameters beside the file; `invalid_upload` (400, as this endpoint always had it) names a wrong one."""
    data: dict[str, object] = {"fileRef": _NOT_YET}
    for name, text in fields.items():
        data[name] = int(text) if name != "out_format" and _WHOLE.fullmatch(text) else text
    with _as_400():
        return validate(SuperResolutionParams, data)


@contextmanager
def _as_400() -> Iterator[None]:
    """What is a 422 elsewhere is a 400 here."""
    try:
        yield
    except ReverieError as error:
        raise ReverieError(ErrorCode.INVALID_UPLOAD, error.message) from None


def _headers(job: Job, params: SuperResolutionParams) -> dict[str, object]:
    return {"X-SR-Magnitude": params.magnitude} | (superres_headers(job.meta) if job.meta else {})
