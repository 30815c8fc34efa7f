"""The endpoints of other APIs: OpenAI's images API and A1111's."""

from __future__ import annotations

from typing import Final

from reverie_gateway.openapi.endpoints import ENDPOINTS, Answer, Endpoint, Parameter, Schema
from reverie_protocol.errors import ErrorCode

_OPENAI: Final = "OpenAI"
_FILE: Final[Schema] = {"type": "string", "format": "binary"}
_TEXT: Final[Schema] = {"type": "string"}


def _of(path: str) -> Endpoint:
    return next(endpoint for endpoint in ENDPOINTS if endpoint.path == path)


_GENERATE, _SUPERRES = _of("/generate"), _of("/superres")
_MAKES: Final = tuple(dict.fromkeys((*_GENERATE.errors, ErrorCode.DEADLINE_EXCEEDED)))
_MAKES_FROM_PICTURE: Final = tuple(dict.fromkeys((*_MAKES, *_SUPERRES.errors)))
_HONOURED: Final = (
    "A field that cannot be honoured is a 422 that names it, except where its value asks for nothing. "
)
_IMAGES: Final = Answer(
    200,
    "the pictures; with `stream` their events",
    {"application/json": "ImagesAnswer", "text/event-stream": _TEXT},
)


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
)
