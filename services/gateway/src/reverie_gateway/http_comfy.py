"""`/v1/comfy/*`: ComfyUI jobs as existing frontends ask for them, the workflows there are, and the instances."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from reverie_gateway.body import read_bounded, read_json
from reverie_gateway.comfy_instances import INSTANCE_PUT, Instances
from reverie_gateway.comfy_preflight import Preflight
from reverie_gateway.comfy_views import STATES, ComfyLens
from reverie_gateway.form_bytes import FormBytes
from reverie_gateway.forms import received_fields
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, Identity, identity_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import available
from reverie_gateway.waiting import Waiters
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.comfy import ComfyWorkflow, ComfyWorkflows
from reverie_protocol.comfy_bodies import (
    ComfyAccepted,
    ComfyCancelled,
    ComfyInstancePut,
    ComfyInstances,
    ComfyJobView,
    ComfyRequest,
)
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.instances import ComfyInstance
from reverie_protocol.jobs import ComfyParams, Job, JobType
from reverie_protocol.parsing import decode_json
from reverie_protocol.validation import validate
from reverie_storage.uploads import Uploads

#: How long the answer to a cancel waits for ComfyUI to confirm it, in seconds.
CONFIRM_S: Final = 5.0
_FIELDS: Final = ("workflowId", "params", "preview", "priority")
_FILE: Final = "image"
_NO_STORE: Final = {"Cache-Control": "no-store"}


class ComfyJobsController(Controller):
    """Submit, poll and cancel."""

    path = "/v1/comfy/jobs"

    @post("/", status_code=200, request_max_body_size=None)
    async def submit_comfy_job(
        self,
        request: HttpRequest,
        *,
        jobs: NamedDependency[Jobs],
        uploads: NamedDependency[Uploads],
        form_bytes: NamedDependency[FormBytes],
    ) -> Response[ComfyAccepted]:
        """Take a job as a form with an image, or as JSON; the answer comes when its record is durable."""
        by = identity_of(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == "multipart/form-data":
            asked = await _from_form(request, by, uploads, form_bytes)
        else:
            asked = _from_json(await read_json(request, read=read_bounded))
        submit = JobSubmit(
            params=_params(asked), priority=asked.priority, idempotency_key=idempotency_key_of(request)
        )
        draft = jobs.draft(submit, owner=by.owner)
        await jobs.preflight(draft, by=by)
        job_id = (await jobs.submit(draft)).stored.job.id
        return Response(ComfyAccepted(job_id, job_id, job_id), headers=_NO_STORE)

    @get("/{job_id:str}")
    async def read_comfy_job(
        self,
        request: HttpRequest,
        job_id: FromPath[str],
        jobs: NamedDependency[Jobs],
        comfy_lens: NamedDependency[ComfyLens],
    ) -> Response[ComfyJobView]:
        """One job as it stands now."""
        job = await _found(jobs, job_id, identity_of(request))
        return Response(comfy_lens.show(job), headers=_NO_STORE)

    @delete("/{job_id:str}", status_code=200)
    async def cancel_comfy_job(
        self,
        request: HttpRequest,
        job_id: FromPath[str],
        jobs: NamedDependency[Jobs],
        waiters: NamedDependency[Waiters],
    ) -> Response[ComfyCancelled]:
        """Stop a job, and wait a while until it has; doing so again, or after its end, changes nothing."""
        by = identity_of(request)
        job = await _found(jobs, job_id, by)
        if not job.state.terminal:
            with waiters.expect(job_id) as end:
                job = (await jobs.cancel(job_id, by=by)).job
                if not job.state.terminal:
                    job = await _ended(end) or job
        return Response(ComfyCancelled(job.id, STATES[job.state]), headers=_NO_STORE)


class ComfyWorkflowsController(Controller):
    """What can be asked for."""

    path = "/v1/comfy/workflows"

    @get("/")
    async def list_workflows(self, comfy_preflight: NamedDependency[Preflight]) -> Response[ComfyWorkflows]:
        """Every named workflow with a JSON Schema of its parameters."""
        return Response(await comfy_preflight.workflows(), headers=_NO_STORE)

    @get("/{workflow_id:str}")
    async def read_workflow(
        self, workflow_id: FromPath[str], comfy_preflight: NamedDependency[Preflight]
    ) -> Response[ComfyWorkflow]:
        """One of them."""
        for workflow in (await comfy_preflight.workflows()).workflows:
            if workflow.id == workflow_id:
                return Response(workflow, headers=_NO_STORE)
        raise ReverieError(ErrorCode.NOT_FOUND, f"there is no workflow {workflow_id[:64]!r}")


class ComfyInstancesController(Controller):
    """Where the work is done; for administrators."""

    path = "/v1/comfy/instances"

    @get("/")
    async def list_instances(
        self, request: HttpRequest, comfy_instances: NamedDependency[Instances]
    ) -> Response[ComfyInstances]:
        """All instances with what is wanted of them and how they do."""
        return Response(ComfyInstances(comfy_instances.all(by=identity_of(request))), headers=_NO_STORE)

    @get("/{name:str}")
    async def read_instance(
        self, request: HttpRequest, name: FromPath[str], comfy_instances: NamedDependency[Instances]
    ) -> Response[ComfyInstance]:
        """One of them."""
        return Response(comfy_instances.read(name, by=identity_of(request)), headers=_NO_STORE)

    @put("/{name:str}")
    async def put_instance(
        self, request: HttpRequest, name: FromPath[str], comfy_instances: NamedDependency[Instances]
    ) -> Response[ComfyInstance]:
        """Enter an instance (201), or change what is wanted of one (200)."""
        by = identity_of(request)
        comfy_instances.require_operator(by, INSTANCE_PUT, name)  # before anything is said of the body
        asked = validate(ComfyInstancePut, await read_json(request), loc_prefix=("body",))
        instance, new = await comfy_instances.put(name, asked, by=by)
        return Response(instance, status_code=201 if new else 200, headers=_NO_STORE)

    @delete("/{name:str}", status_code=200)
    async def delete_instance(
        self, request: HttpRequest, name: FromPath[str], comfy_instances: NamedDependency[Instances]
    ) -> Response[ComfyInstance]:
        """Take an instance out of the table; its last record."""
        return Response(await comfy_instances.delete(name, by=identity_of(request)), headers=_NO_STORE)


async def _found(jobs: Jobs, job_id: str, by: Identity) -> Job:
    """A ComfyUI job; `job_not_found` for others."""
    job = (await jobs.find(job_id, by=by)).job
    if job.type is not JobType.COMFY:
        raise ReverieError(ErrorCode.JOB_NOT_FOUND, f"there is no job {job_id[:64]!r}")
    return job


async def _ended(end: asyncio.Future[Job]) -> Job | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CONFIRM_S):
            return await end
    return None


def _params(asked: ComfyRequest) -> ComfyParams:
    wrong = []
    if asked.workflow_id is None and asked.workflow is None:
        wrong.append(FieldError(("body", "workflowId"), "is required (or `workflow`, a graph)", "missing"))
    if asked.workflow_id is not None and asked.workflow is not None:
        wrong.append(FieldError(("body", "workflow"), "does not go with workflowId", "conflict"))
    if wrong:
        raise ReverieError(ErrorCode.INVALID_FIELD, f"{wrong[0].loc[-1]}: {wrong[0].msg}", fields=wrong)
    return ComfyParams(
        workflowId=asked.workflow_id,
        workflow=asked.workflow,
        params=asked.params,
        inputImage=asked.input_image,
        preview=asked.preview,
    )


def _from_json(data: object) -> ComfyRequest:
    return validate(ComfyRequest, data, loc_prefix=("body",), forbid_unknown=False, null_is_absent=True)


async def _from_form(
    request: HttpRequest, by: Identity, uploads: Uploads, form_bytes: FormBytes
) -> ComfyRequest:
    """The same from a form, whose `params` are JSON in a field and whose image is a file."""
    async with received_fields(request, form_bytes=form_bytes, files=(_FILE,), fields=_FIELDS) as form:
        data: dict[str, Any] = {name: text for name, text in form.fields.items() if text}
        data["params"] = _own_params(data.get("params", "{}"))
        if data.get("priority", "").isdigit():
            data["priority"] = int(data["priority"][:9])
        asked = _from_json(data)
        if _FILE not in form.files:
            return asked
        async with available():
            upload = await uploads.keep(form.files[_FILE], owner=by.owner)
    return msgspec.structs.replace(asked, input_image=upload.key)


def _own_params(text: str) -> dict[str, Any]:
    """The field `params` of a form; `invalid_json` where it is no JSON object, which is a 400 here."""
    try:
        params = decode_json(text)
    except ReverieError as error:
        raise ReverieError(ErrorCode.INVALID_JSON, f"params: {error.message}") from None
    if not isinstance(params, dict):
        raise ReverieError(ErrorCode.INVALID_JSON, "params: must be a JSON object")
    return params
