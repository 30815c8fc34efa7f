"""The table of endpoints: what each takes, answers and refuses.  A test holds it against the routes there are."""

from __future__ import annotations

from typing import Final

from reverie_gateway.openapi.comfy_endpoints import COMFY_ENDPOINTS
from reverie_gateway.openapi.dream_endpoints import DREAM_ENDPOINTS
from reverie_gateway.openapi.entries import (
    BODY,
    IDEMPOTENCY,
    JOB,
    STORE,
    TEXT,
    UPLOAD,
    Answer,
    Endpoint,
    Header,
    Parameter,
    Schema,
)
from reverie_protocol.errors import ErrorCode
from reverie_storage.pictures import THUMBNAIL_SIDES

_INTEGER: Final[Schema] = {"type": "integer"}
_PICTURE: Final[Schema] = {"type": "string", "format": "binary"}

#: Server-sent events: no schema of JSON describes them.
EVENT_STREAM: Final[Schema] = {"description": "server-sent events"}

_KEY = Parameter(
    "key", "path", "key of a stored object, as `outputs[].key` names it; or the name of a text of yours"
)
_NAME = Parameter(
    "key", "path", "name of the text", {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9:._-]{0,199}$"}
)
#: How a job that a request waits for may end.
_JOB_FAILURES = (
    ErrorCode.CANCELLED,
    ErrorCode.WAIT_TIMEOUT,
    ErrorCode.INTERNAL,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.MODEL_LOAD_FAILED,
    ErrorCode.UNSAFE_CHECKPOINT,
    ErrorCode.UNSUPPORTED_MODEL,
    ErrorCode.INFERENCE_FAILED,
    ErrorCode.INVALID_OUTPUT,
    ErrorCode.CRASH_LOOP,
)
_SUPERRES_HEADERS = (
    Header("X-LCM-Image-Key", "storage key of the picture"),
    Header("X-Job-Id", "the job, to be found at `/v1/jobs/{id}`"),
    Header("X-SR-Model", "super-resolution model"),
    Header("X-SR-Magnitude", "passes that were asked for", _INTEGER),
    Header("X-SR-Passes", "passes that were made", _INTEGER),
    Header("X-SR-Scale-Per-Pass", "factor of one pass", _INTEGER),
    Header("X-SR-Format", "png or jpeg"),
)
_SUPER_RESOLUTION = "; with `superres` only"
_PICTURE_HEADERS = (
    Header("X-Seed", "seed that was used", _INTEGER),
    Header("X-Mode", "mode that was used, percent-encoded where it is not ASCII"),
    Header("X-SuperRes", "1 if super-resolution was applied, else 0", {"enum": ["0", "1"]}),
    Header("X-LCM-Image-Key", "storage key of the picture"),
    Header("X-Backend", "backend that made it"),
    Header("X-Job-Id", "the job, to be found at `/v1/jobs/{id}`"),
    Header("X-SR-Model", "super-resolution model" + _SUPER_RESOLUTION),
    Header("X-SR-Passes", "passes" + _SUPER_RESOLUTION, _INTEGER),
    Header("X-SR-Scale-Per-Pass", "factor of one pass" + _SUPER_RESOLUTION, _INTEGER),
    Header("X-SR-Format", "png or jpeg" + _SUPER_RESOLUTION),
)
_OBJECT_HEADERS = (
    Header("ETag", "strong validator"),
    Header("X-Storage-Key", "key of the object"),
    Header("X-Storage-Created-At", "when it was stored, in seconds since the epoch"),
)
_OBJECT: Final[dict[str, str | Schema]] = {
    "image/png": _PICTURE,
    "image/jpeg": _PICTURE,
    "image/webp": _PICTURE,
    "text/plain": TEXT,
}

ENDPOINTS: Final = (
    Endpoint(
        method="post",
        path="/generate",
        operation_id="generate",
        tag="Generation",
        summary="One picture, in the answer",
        description="Unknown fields are ignored and null means the default. The job goes on when the wait runs out "
        "(504, with its address in the body) and when the client leaves; it can be cancelled by its id.",
        parameters=(IDEMPOTENCY,),
        body="GenerateRequest",
        answers=(
            Answer(
                200, "the picture", {"image/png": _PICTURE, "image/jpeg": _PICTURE}, headers=_PICTURE_HEADERS
            ),
        ),
        errors=(
            *BODY,
            *STORE,
            ErrorCode.MODE_NOT_FOUND,
            ErrorCode.STYLE_NOT_FOUND,
            ErrorCode.FILE_NOT_FOUND,
            ErrorCode.IDEMPOTENCY_CONFLICT,
            ErrorCode.QUEUE_FULL,
            ErrorCode.DRAINING,
            ErrorCode.NO_WORKER,
            ErrorCode.SUPERRES_DISABLED,
            ErrorCode.STORAGE_UNAVAILABLE,
            *_JOB_FAILURES,
        ),
    ),
    Endpoint(
        method="post",
        path="/v1/jobs",
        operation_id="submitJob",
        tag="Jobs",
        summary="Submit a job",
        description="Answered when the job's record is durable. Unknown fields are refused. A job waits for a "
        "worker that is away; what no worker could ever run is refused at once.",
        parameters=(IDEMPOTENCY,),
        body="JobRequest",
        answers=(
            Answer(
                202,
                "the job is durable",
                {"application/json": "JobAccepted"},
                (Header("Location", "where the job can be followed"),),
            ),
        ),
        errors=(
            *BODY,
            *STORE,
            ErrorCode.MODE_NOT_FOUND,
            ErrorCode.STYLE_NOT_FOUND,
            ErrorCode.IDEMPOTENCY_CONFLICT,
            ErrorCode.QUEUE_FULL,
            ErrorCode.DRAINING,
            ErrorCode.NO_WORKER,
            ErrorCode.SUPERRES_DISABLED,
            ErrorCode.WORKFLOW_NOT_FOUND,
            ErrorCode.WORKFLOW_INVALID,
            ErrorCode.COMFY_UNREACHABLE,
        ),
    ),
    Endpoint(
        method="get",
        path="/v1/jobs",
        operation_id="listJobs",
        tag="Jobs",
        summary="Your jobs, newest first",
        parameters=(
            Parameter("state", "query", "only these states, separated by commas"),
            Parameter(
                "limit",
                "query",
                "jobs in one answer",
                {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
            ),
            Parameter("cursor", "query", "`cursor` of the previous answer"),
            Parameter("owner", "query", "for administrators: whose jobs, `*` for everybody's"),
        ),
        answers=(Answer(200, "jobs", {"application/json": "JobPage"}),),
        errors=(ErrorCode.INVALID_FIELD,),
    ),
    Endpoint(
        method="get",
        path="/v1/jobs/{job_id}",
        operation_id="readJob",
        tag="Jobs",
        summary="One job as it stands now",
        parameters=(JOB,),
        answers=(Answer(200, "the job", {"application/json": "JobView"}),),
        errors=(ErrorCode.JOB_NOT_FOUND, *STORE),
    ),
    Endpoint(
        method="delete",
        path="/v1/jobs/{job_id}",
        operation_id="cancelJob",
        tag="Jobs",
        summary="Cancel a job",
        description="At once if it waits, at its next denoising step if it runs (`cancelling`). Idempotent: after "
        "its end nothing changes.",
        parameters=(JOB,),
        answers=(Answer(200, "the job", {"application/json": "JobView"}),),
        errors=(ErrorCode.JOB_NOT_FOUND, ErrorCode.FORBIDDEN, *STORE),
    ),
    Endpoint(
        method="patch",
        path="/v1/jobs/{job_id}",
        operation_id="moveJob",
        tag="Jobs",
        summary="Move a job to another lane, another place within it, or both",
        description="The place is one of `position` (0 is next), `place`, `before` and `after`, among your own "
        "jobs of the lane: between users turns decide. A running job takes the lane alone, from its next step "
        "on; a place is ignored.",
        parameters=(JOB,),
        body="JobPatch",
        answers=(Answer(200, "the job", {"application/json": "JobView"}),),
        errors=(*BODY, ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_FINISHED, *STORE),
    ),
    Endpoint(
        method="post",
        path="/v1/jobs/{job_id}/retry",
        operation_id="retryJob",
        tag="Jobs",
        summary="Do a failed or cancelled job again",
        description="A new job with the same parameters and seed; its `retryOf` names the old one, which stays as "
        "it is. Asking twice gives the same retry.",
        parameters=(JOB,),
        answers=(
            Answer(
                202,
                "the retry is durable",
                {"application/json": "JobAccepted"},
                (Header("Location", "where the retry can be followed"),),
            ),
        ),
        errors=(
            *STORE,
            ErrorCode.FORBIDDEN,
            ErrorCode.JOB_NOT_FOUND,
            ErrorCode.JOB_NOT_RETRYABLE,
            ErrorCode.MODE_NOT_FOUND,
            ErrorCode.STYLE_NOT_FOUND,
            ErrorCode.INVALID_FIELD,
            ErrorCode.QUEUE_FULL,
            ErrorCode.DRAINING,
            ErrorCode.NO_WORKER,
            ErrorCode.SUPERRES_DISABLED,
        ),
    ),
    Endpoint(
        method="get",
        path="/v1/queue",
        operation_id="readQueue",
        tag="Queue",
        summary="The queue, as `queue:state` on the WebSocket has it, and its gates",
        description="The first 50 rows in the order in which they will be claimed; the counts are of all jobs. "
        "Others' rows have no `jobId`.",
        answers=(Answer(200, "the queue", {"application/json": "QueueView"}),),
    ),
    Endpoint(
        method="patch",
        path="/v1/queue",
        operation_id="changeQueue",
        tag="Queue",
        summary="Pause, resume or drain the queue, its lanes and its workers",
        description="For administrators. A gate is set as a whole: `{}` opens it. Gates that are not named stay as "
        "they are. Paused, nothing is claimed; draining, nothing new is taken and what is there is done.",
        body="QueueControlPatch",
        answers=(Answer(200, "the queue with the gates now in force", {"application/json": "QueueView"}),),
        errors=(*BODY, *STORE),
    ),
    *(
        Endpoint(
            method=method,
            path="/storage/{key}",
            operation_id=f"{verb}Object",
            tag="Storage",
            summary=summary,
            description="A picture is open to whoever knows its key and may be cached for ever; a text is its "
            "owner's, and gone after 300 seconds.",
            token_optional=True,
            parameters=(
                _KEY,
                Parameter(
                    "thumbnail",
                    "query",
                    "a WebP whose longer side has at most so many pixels, in place of a picture",
                    {"type": "integer", "enum": list(THUMBNAIL_SIDES)},
                ),
                Parameter("If-None-Match", "header", "answer 304 if the object still has this ETag"),
                Parameter("Range", "header", "one range of bytes; several are answered with the whole"),
                Parameter("If-Range", "header", "honour Range only while the object has this ETag"),
            ),
            answers=(
                Answer(200, "the whole object", content, _OBJECT_HEADERS),
                Answer(
                    206,
                    "the range",
                    content,
                    (*_OBJECT_HEADERS, Header("Content-Range", "which bytes these are")),
                ),
                Answer(304, "the object is what you have", {}, _OBJECT_HEADERS),
            ),
            errors=(
                ErrorCode.NOT_FOUND,
                ErrorCode.INVALID_FIELD,
                ErrorCode.RANGE_NOT_SATISFIABLE,
                ErrorCode.RATE_LIMITED,
                ErrorCode.STORAGE_UNAVAILABLE,
            ),
        )
        for method, verb, summary, content in (
            ("get", "read", "A stored object", _OBJECT),
            ("head", "describe", "Its headers alone", {}),
        )
    ),
    Endpoint(
        method="put",
        path="/storage/{key}",
        operation_id="putText",
        tag="Storage",
        summary="Keep a small text for 300 seconds",
        description="In place of what the name stood for. Names are each owner's own: others neither see nor "
        "replace it. Unknown fields are ignored.",
        parameters=(_NAME,),
        body="TextToStore",
        answers=(Answer(200, "it is kept", {"application/json": "TextStored"}),),
        errors=(*BODY, ErrorCode.RATE_LIMITED, ErrorCode.STORAGE_UNAVAILABLE),
    ),
    Endpoint(
        method="post",
        path="/v1/upload",
        operation_id="upload",
        tag="Storage",
        summary="Send a picture for later jobs",
        description="PNG, JPEG or WebP, by its content and not by its name. The reference is yours for 300 seconds "
        "and may be used several times, in `fileRef`, `initImage`, `maskImage` and `inputImage`, with or without "
        "`fileRef:` before it; a job that names it keeps the picture for as long as it needs it.",
        form={
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary"}},
        },
        answers=(Answer(200, "the reference", {"application/json": "UploadAccepted"}),),
        errors=UPLOAD,
    ),
    *(
        Endpoint(
            method="post",
            path=path,
            operation_id=operation_id,
            tag="Generation",
            summary="A picture, enlarged, in the answer",
            description="PNG, JPEG or WebP in; transparency is kept, EXIF orientation applied. The job goes on if "
            "the wait runs out (504, with its address in the body) or the client leaves. Fields that are "
            "not known are ignored.",
            parameters=(IDEMPOTENCY,),
            form={
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "magnitude": {"type": "integer", "minimum": 1, "maximum": 3, "default": 2},
                    "out_format": {"enum": ["png", "jpeg"], "default": "png"},
                    "quality": {"type": "integer", "minimum": 1, "maximum": 100, "default": 92},
                },
            },
            answers=(
                Answer(
                    200,
                    "the picture",
                    {"image/png": _PICTURE, "image/jpeg": _PICTURE},
                    headers=_SUPERRES_HEADERS,
                ),
            ),
            errors=(
                *UPLOAD,
                *STORE,
                *_JOB_FAILURES,
                ErrorCode.FILE_NOT_FOUND,
                ErrorCode.IDEMPOTENCY_CONFLICT,
                ErrorCode.QUEUE_FULL,
                ErrorCode.DRAINING,
                ErrorCode.NO_WORKER,
                ErrorCode.SUPERRES_DISABLED,
            ),
        )
        for path, operation_id in (("/superres", "superres"), ("/v1/superres", "superresV1"))
    ),
    *COMFY_ENDPOINTS,
    *DREAM_ENDPOINTS,
    Endpoint(
        method="get",
        path="/storage/health",
        operation_id="readStorageHealth",
        tag="Storage",
        summary="Whether the store works",
        answers=(
            Answer(200, "it does", {"application/json": "StorageReport"}),
            Answer(503, "it does not, and why", {"application/json": "StorageReport"}),
        ),
    ),
    Endpoint(
        method="get",
        path="/v1/events",
        operation_id="streamEvents",
        tag="Jobs",
        summary="The WebSocket's events as server-sent events",
        description="Each event's data is the WebSocket's message. The id of a transition is `<epoch>:<seq>`: sent "
        "back as `Last-Event-ID`, every transition since then follows (`resumed` says `recovered: true`), or the "
        "current state where the log no longer reaches back that far.",
        parameters=(
            Parameter("Last-Event-ID", "header", "the id of the last event that was seen, or its seq"),
            Parameter("cursor", "query", "the same, for clients that cannot set the header"),
        ),
        answers=(Answer(200, "events until either side ends", {"text/event-stream": EVENT_STREAM}),),
        errors=(ErrorCode.INVALID_FIELD,),
    ),
    Endpoint(
        method="get",
        path="/api/models/status",
        operation_id="readModelsStatus",
        tag="Models",
        summary="The current mode, how many jobs wait, and the memory",
        answers=(Answer(200, "the state", {"application/json": "ModelsStatus"}),),
    ),
    Endpoint(
        method="get",
        path="/api/modes",
        operation_id="readModes",
        tag="Models",
        summary="Every mode with its defaults",
        answers=(Answer(200, "the modes", {"application/json": "ModesView"}),),
    ),
    Endpoint(
        method="post",
        path="/api/modes/switch",
        operation_id="switchMode",
        tag="Models",
        summary="Change the mode of jobs that name none",
        description="A job of the lane `urgent` on each worker that has the mode. For administrators.",
        body="ModeSwitch",
        answers=(Answer(200, "it is so already, or queued", {"application/json": "ModeSwitched"}),),
        errors=(
            *BODY,
            *STORE,
            ErrorCode.MODE_NOT_FOUND,
            ErrorCode.MODEL_LOAD_FAILED,
            ErrorCode.NO_WORKER,
            ErrorCode.DRAINING,
        ),
    ),
    Endpoint(
        method="post",
        path="/api/modes/reload",
        operation_id="reloadModes",
        tag="Models",
        summary="Read every worker's modes.yml again",
        description="A broken file changes nothing. For administrators.",
        answers=(Answer(200, "the modes there are now", {"application/json": "ModesReread"}),),
        errors=(*STORE, ErrorCode.INVALID_MODES, ErrorCode.NO_WORKER, ErrorCode.FORBIDDEN),
    ),
    Endpoint(
        method="get",
        path="/api/vram",
        operation_id="readVram",
        tag="Models",
        summary="Accelerator memory, and the models in it",
        answers=(Answer(200, "the memory", {"application/json": "VramView"}),),
    ),
    *(
        Endpoint(
            method="post",
            path=f"/api/models/{name}",
            operation_id=f"{name}Model",
            tag="Models",
            summary="Not there: models come and go with the modes that jobs ask for",
            answers=(),
            errors=(ErrorCode.NOT_IMPLEMENTED, ErrorCode.FORBIDDEN),
        )
        for name in ("load", "unload")
    ),
    Endpoint(
        method="get",
        path="/v1/system/status",
        operation_id="readSystemStatus",
        tag="System",
        summary="State of the platform, as `system:status` on the WebSocket has it",
        answers=(Answer(200, "the state", {"application/json": "SystemStatus"}),),
    ),
    Endpoint(
        method="get",
        path="/health",
        operation_id="readHealth",
        tag="System",
        summary="The process lives",
        answers=(Answer(200, "it does", {"application/json": {"const": {"status": "ok"}}}),),
    ),
    Endpoint(
        method="get",
        path="/ready",
        operation_id="readReadiness",
        tag="System",
        summary="The gateway can take work",
        description="Asks NATS for a round trip, the mirrors and the store.",
        answers=(
            Answer(200, "it can", {"application/json": "Readiness"}),
            Answer(503, "it cannot; `reasons` says why", {"application/json": "Readiness"}),
        ),
    ),
    Endpoint(
        method="get",
        path="/metrics",
        operation_id="readMetrics",
        tag="System",
        summary="Prometheus metrics",
        description="Without a token from this machine only, and not through a proxy; else for administrators.",
        token_optional=True,
        answers=(Answer(200, "metrics in text format", {"text/plain": TEXT}),),
        errors=(ErrorCode.FORBIDDEN,),
    ),
    Endpoint(
        method="get",
        path="/schema/openapi.json",
        operation_id="readOpenapi",
        tag="System",
        summary="This document",
        answers=(Answer(200, "OpenAPI 3.1", {"application/json": {"type": "object"}}),),
    ),
    Endpoint(
        method="get",
        path="/",
        operation_id="readPage",
        tag="System",
        summary="A page to try it",
        answers=(Answer(200, "HTML", {"text/html": TEXT}),),
    ),
)
