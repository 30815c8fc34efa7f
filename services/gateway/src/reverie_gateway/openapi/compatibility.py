"""The endpoints of other APIs: OpenAI's images API and A1111's."""

from __future__ import annotations

from typing import Final

from reverie_gateway.openapi.endpoints import ENDPOINTS, EVENT_STREAM
from reverie_gateway.openapi.entries import Answer, Endpoint, Parameter, Schema
from reverie_protocol.errors import ErrorCode

_OPENAI: Final = "OpenAI"
_A1111: Final = "A1111"
_FILE: Final[Schema] = {"type": "string", "format": "binary"}
_TEXT: Final[Schema] = {"type": "string"}
_OBJECT: Final[Schema] = {"type": "object"}
_LIST: Final[Schema] = {"type": "array", "items": {"type": "object"}}
_NULL: Final = Answer(200, "null", {"application/json": {"type": "null"}})


def _of(path: str) -> Endpoint:
    return next(endpoint for endpoint in ENDPOINTS if endpoint.path == path)


_GENERATE, _SUPERRES = _of("/generate"), _of("/superres")
_SWITCH: Final = _of("/api/modes/switch")
_READS_BODY: Final = (
    ErrorCode.INVALID_JSON,
    ErrorCode.INVALID_FIELD,
    ErrorCode.INVALID_MESSAGE,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.FORBIDDEN,
)
_MAKES: Final = tuple(dict.fromkeys((*_GENERATE.errors, ErrorCode.DEADLINE_EXCEEDED)))
_MAKES_FROM_PICTURE: Final = tuple(dict.fromkeys((*_MAKES, *_SUPERRES.errors)))
_HONOURED: Final = (
    "A field that cannot be honoured is a 422 that names it, except where its value asks for nothing. "
)
_IMAGES: Final = Answer(
    200,
    "the pictures; with `stream` their events",
    {"application/json": "ImagesAnswer", "text/event-stream": EVENT_STREAM},
)


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _form(*files: str) -> Schema:
    """A form with pictures, and as text the fields of `ImageEdit`."""
    fields = dict.fromkeys(files, _FILE) | {"prompt": _TEXT, "n": {"type": "integer"}, "size": _TEXT}
    return {
        "type": "object",
        "properties": fields,
        "required": ["image", "prompt"] if "mask" in files else ["image"],
    }


COMPATIBILITY: Final = (
    Endpoint(
        method="post",
        path="/v1/images/generations",
        operation_id="generateImages",
        tag=_OPENAI,
        summary="One to ten pictures from a prompt, each a job of its own",
        description=_HONOURED
        + "`quality` may be `auto` or `standard`, `background` `auto` or `opaque`, `moderation`, "
        "`user` and `safety_identifier` may be there. With `stream` the answer is `image_generation.partial_image` "
        "(previews, at most `partial_images` of each picture) and `image_generation.completed`, or an event with "
        "an `error`.",
        parameters=_GENERATE.parameters,
        body="ImageGeneration",
        answers=(_IMAGES,),
        errors=_MAKES,
    ),
    Endpoint(
        method="post",
        path="/v1/images/edits",
        operation_id="editImage",
        tag=_OPENAI,
        summary="A picture changed as a prompt says",
        description="All of it, or what is transparent in `mask`, a picture of the same size. Other fields as in "
        "`/v1/images/generations`, and `strength`.",
        parameters=_GENERATE.parameters,
        form=_form("image", "mask"),
        answers=(_IMAGES,),
        errors=_MAKES_FROM_PICTURE,
    ),
    Endpoint(
        method="post",
        path="/v1/images/variations",
        operation_id="varyImage",
        tag=_OPENAI,
        summary="Pictures like another one",
        description="Other fields as in `/v1/images/edits`.",
        parameters=_GENERATE.parameters,
        form=_form("image"),
        answers=(_IMAGES,),
        errors=_MAKES_FROM_PICTURE,
    ),
    Endpoint(
        method="get",
        path="/v1/models",
        operation_id="listModels",
        tag=_OPENAI,
        summary="The modes that can be used",
        answers=(Answer(200, "the modes", {"application/json": "ModelCards"}),),
    ),
    Endpoint(
        method="get",
        path="/v1/models/{model}",
        operation_id="readModel",
        tag=_OPENAI,
        summary="A mode",
        parameters=(Parameter("model", "path", "its name"),),
        answers=(Answer(200, "the mode", {"application/json": "ModelCard"}),),
        errors=(ErrorCode.MODE_NOT_FOUND,),
    ),
    Endpoint(
        method="post",
        path="/sdapi/v1/txt2img",
        operation_id="makeFromText",
        tag=_A1111,
        summary="`batch_size` x `n_iter` pictures from a prompt, each a job of its own",
        description=_HONOURED + "What well-known clients send with every request counts as not sent. After "
        "`/sdapi/v1/interrupt` the answer has what there is.",
        parameters=_GENERATE.parameters,
        body="TextToImage",
        answers=(Answer(200, "the pictures", {"application/json": "PicturesAnswer"}),),
        errors=_MAKES,
    ),
    Endpoint(
        method="post",
        path="/sdapi/v1/img2img",
        operation_id="makeFromPicture",
        tag=_A1111,
        summary="The same from another picture, and under a mask",
        description=_HONOURED + "The body may have `gateway.base64_mb`.",
        parameters=_GENERATE.parameters,
        body="ImageToImage",
        answers=(Answer(200, "the pictures", {"application/json": "PicturesAnswer"}),),
        errors=_MAKES_FROM_PICTURE,
    ),
    Endpoint(
        method="post",
        path="/sdapi/v1/extra-single-image",
        operation_id="enlargeOne",
        tag=_A1111,
        summary="A picture enlarged, a job of super-resolution",
        description=_HONOURED,
        parameters=_GENERATE.parameters,
        body="SingleEnlargement",
        answers=(Answer(200, "the picture", {"application/json": "EnlargementAnswer"}),),
        errors=_MAKES_FROM_PICTURE,
    ),
    Endpoint(
        method="get",
        path="/sdapi/v1/progress",
        operation_id="readProgress",
        tag=_A1111,
        summary="How the caller's request goes",
        description="The one that `id_task` names, else the one that runs, else the next; or zeros.",
        parameters=(
            Parameter("id_task", "query", "its `force_task_id`"),
            Parameter("skip_current_image", "query", "true: no preview", {"type": "boolean"}),
        ),
        answers=(Answer(200, "its progress", {"application/json": "ProgressAnswer"}),),
        errors=(ErrorCode.INVALID_FIELD,),
    ),
    Endpoint(
        method="post",
        path="/internal/progress",
        operation_id="readTaskProgress",
        tag=_A1111,
        summary="How the request with a `force_task_id` goes",
        body="ProgressQuestion",
        answers=(Answer(200, "its progress", {"application/json": "TaskProgress"}),),
        errors=_READS_BODY,
    ),
    *(
        Endpoint(
            method="post",
            path=f"/sdapi/v1/{name}",
            operation_id=f"{name}Pictures",
            tag=_A1111,
            summary=summary,
            answers=(_NULL,),
            errors=(ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.FORBIDDEN),
        )
        for name, summary in (
            ("interrupt", "Stop the caller's pictures, those that wait included"),
            ("skip", "Stop the caller's pictures that are being made"),
        )
    ),
    Endpoint(
        method="get",
        path="/sdapi/v1/options",
        operation_id="readOptions",
        tag=_A1111,
        summary="Settings; `sd_model_checkpoint` is the mode of requests that name none",
        answers=(Answer(200, "the settings", {"application/json": _OBJECT}),),
    ),
    Endpoint(
        method="post",
        path="/sdapi/v1/options",
        operation_id="setOptions",
        tag=_A1111,
        summary="Switch to the mode `sd_model_checkpoint`, and wait for it",
        description="For administrators. Other settings may be there with the values that they have.",
        body="Options",
        answers=(_NULL,),
        errors=(*_SWITCH.errors, *_MAKES),
    ),
    Endpoint(
        method="post",
        path="/sdapi/v1/refresh-checkpoints",
        operation_id="refreshCheckpoints",
        tag=_A1111,
        summary="Read every worker's modes.yml again",
        answers=(_NULL,),
        errors=_of("/api/modes/reload").errors,
    ),
    *(
        Endpoint(
            method="get",
            path=f"/sdapi/v1/{name}",
            operation_id="list" + "".join(part.capitalize() for part in name.split("-")),
            tag=_A1111,
            summary=summary,
            answers=(Answer(200, "what there is", {"application/json": schema}),),
        )
        for name, summary, schema in (
            ("sd-models", "The modes that can be used", _list_of("CheckpointCard")),
            ("samplers", "The samplers that some worker has", _list_of("SamplerCard")),
            ("schedulers", "Noise schedules that go with samplers", _LIST),
            ("upscalers", "Super-resolution, where a worker has it", _list_of("UpscalerCard")),
            ("loras", "LoRAs that modes wear", _list_of("LoraCard")),
            ("memory", "Accelerator memory in bytes", _OBJECT),
            ("scripts", "None", _OBJECT),
            ("embeddings", "None", _OBJECT),
            ("cmd-flags", "None", _OBJECT),
            ("sd-vae", "None", _LIST),
            ("hypernetworks", "None", _LIST),
            ("face-restorers", "None", _LIST),
            ("realesrgan-models", "None", _LIST),
            ("latent-upscale-modes", "None", _LIST),
            ("prompt-styles", "None", _LIST),
        )
    ),
)
