"""The endpoints of ComfyUI: what each takes, answers and refuses."""

from __future__ import annotations

from typing import Final

from reverie_gateway.openapi.entries import BODY, IDEMPOTENCY, JOB, STORE, UPLOAD, Answer, Endpoint, Parameter
from reverie_protocol.errors import ErrorCode

_COMFY: Final = "ComfyUI"
_NAME: Final = Parameter(
    "name", "path", "the instance", {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,31}$"}
)

COMFY_ENDPOINTS: Final = (
    Endpoint(
        method="post",
        path="/v1/comfy/jobs",
        operation_id="submitComfyJob",
        tag=_COMFY,
        summary="Run a ComfyUI workflow",
        description="As JSON, or as a form whose `params` are JSON in a field and whose `image` is a file. "
        "Answered when the job's record is durable. Unknown fields are ignored, unknown parameters refused. What "
        "ComfyUI would object to is a 422 with `nodeErrors`, one for each node and input. A graph of one's own "
        "(`workflow`) is for administrators.",
        parameters=(IDEMPOTENCY,),
        body="ComfyRequest",
        form={
            "type": "object",
            "properties": {
                "workflowId": {"type": "string", "description": "one of `GET /v1/comfy/workflows`"},
                "params": {"type": "string", "description": "a JSON object", "default": "{}"},
                "image": {"type": "string", "format": "binary"},
                "preview": {"enum": ["auto", "latent2rgb", "taesd", "none"]},
                "priority": {"type": "string", "description": "lane by number or name"},
            },
            "required": ["workflowId"],
        },
        answers=(Answer(200, "the job's id, in three spellings", {"application/json": "ComfyAccepted"}),),
        errors=(
            *BODY,
            *STORE,
            *UPLOAD,
            ErrorCode.WORKFLOW_NOT_FOUND,
            ErrorCode.WORKFLOW_INVALID,
            ErrorCode.COMFY_UNREACHABLE,
            ErrorCode.FILE_NOT_FOUND,
            ErrorCode.IDEMPOTENCY_CONFLICT,
            ErrorCode.QUEUE_FULL,
            ErrorCode.DRAINING,
        ),
    ),
    Endpoint(
        method="get",
        path="/v1/comfy/jobs/{job_id}",
        operation_id="readComfyJob",
        tag=_COMFY,
        summary="One ComfyUI job as it stands now",
        parameters=(JOB,),
        answers=(Answer(200, "the job", {"application/json": "ComfyJobView"}),),
        errors=(ErrorCode.JOB_NOT_FOUND, *STORE),
    ),
    Endpoint(
        method="delete",
        path="/v1/comfy/jobs/{job_id}",
        operation_id="cancelComfyJob",
        tag=_COMFY,
        summary="Cancel a ComfyUI job",
        description="A running prompt is interrupted, and the answer waits up to 5 seconds for ComfyUI to confirm "
        "it. Idempotent.",
        parameters=(JOB,),
        answers=(Answer(200, "how the job stands", {"application/json": "ComfyCancelled"}),),
        errors=(ErrorCode.JOB_NOT_FOUND, *STORE, ErrorCode.FORBIDDEN),
    ),
    Endpoint(
        method="get",
        path="/v1/comfy/workflows",
        operation_id="listComfyWorkflows",
        tag=_COMFY,
        summary="The workflows there are, each with a JSON Schema of its parameters",
        answers=(Answer(200, "the workflows", {"application/json": "ComfyWorkflows"}),),
        errors=(ErrorCode.COMFY_UNREACHABLE,),
    ),
    Endpoint(
        method="get",
        path="/v1/comfy/workflows/{workflow_id}",
        operation_id="readComfyWorkflow",
        tag=_COMFY,
        summary="One workflow",
        parameters=(Parameter("workflow_id", "path", "the workflow"),),
        answers=(Answer(200, "the workflow", {"application/json": "ComfyWorkflow"}),),
        errors=(ErrorCode.NOT_FOUND, ErrorCode.COMFY_UNREACHABLE),
    ),
    Endpoint(
        method="get",
        path="/v1/comfy/instances",
        operation_id="listComfyInstances",
        tag=_COMFY,
        summary="The ComfyUI instances; for administrators",
        answers=(Answer(200, "the instances", {"application/json": "ComfyInstances"}),),
        errors=(ErrorCode.FORBIDDEN,),
    ),
    Endpoint(
        method="get",
        path="/v1/comfy/instances/{name}",
        operation_id="readComfyInstance",
        tag=_COMFY,
        summary="One ComfyUI instance; for administrators",
        parameters=(_NAME,),
        answers=(Answer(200, "the instance", {"application/json": "ComfyInstance"}),),
        errors=(ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN),
    ),
    Endpoint(
        method="put",
        path="/v1/comfy/instances/{name}",
        operation_id="putComfyInstance",
        tag=_COMFY,
        summary="Enter a ComfyUI instance, or change what is wanted of one; for administrators",
        description="What the body leaves out stays as it is; a new one needs a `url`: http or https, without "
        "credentials, query or fragment, not link-local. Draining, it finishes what it has and takes nothing new.",
        parameters=(_NAME,),
        body="ComfyInstancePut",
        answers=(
            Answer(200, "what is in force", {"application/json": "ComfyInstance"}),
            Answer(201, "it is new", {"application/json": "ComfyInstance"}),
        ),
        errors=(*BODY, *STORE),
    ),
    Endpoint(
        method="delete",
        path="/v1/comfy/instances/{name}",
        operation_id="deleteComfyInstance",
        tag=_COMFY,
        summary="Take a ComfyUI instance out; for administrators",
        description="Its running jobs go to others. One that the bridge's settings name comes back with them.",
        parameters=(_NAME,),
        answers=(Answer(200, "its last record", {"application/json": "ComfyInstance"}),),
        errors=(ErrorCode.NOT_FOUND, ErrorCode.INVALID_FIELD, ErrorCode.FORBIDDEN, *STORE),
    ),
)
