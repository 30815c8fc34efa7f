"""`/sdapi/v1/*` that makes pictures, tells how that goes, and stops it: A1111's API, on top of the same jobs."""

from __future__ import annotations

from typing import Any, Final

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.response import Stream

from reverie_gateway.body import read_json
from reverie_gateway.dialect import BODY, Harmless, read_body
from reverie_gateway.identity import HttpRequest, identity_of, owner_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.picture_bodies import PictureBodies
from reverie_gateway.sdapi_desk import Order, SdapiDesk
from reverie_gateway.sdapi_request import read_image_to_image, read_text_to_image
from reverie_gateway.sdapi_tasks import SdapiTasks
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import SuperResolutionParams
from reverie_protocol.sdapi_bodies import ProgressAnswer, ProgressQuestion, SingleEnlargement, TaskProgress
from reverie_protocol.validation import validate

_ENLARGEMENT_HARMLESS: Final = {
    "resize_mode": Harmless((0,), "`upscaling_resize` says how large"),
    "show_extras_results": Harmless(),
    "gfpgan_visibility": Harmless((0,)),
    "codeformer_visibility": Harmless((0,)),
    "codeformer_weight": Harmless(),
    "upscaling_resize_w": Harmless(),
    "upscaling_resize_h": Harmless(),
    "upscaling_crop": Harmless(),
    "upscaler_2": Harmless(("", "None")),
    "extras_upscaler_2_visibility": Harmless((0,)),
    "upscale_first": Harmless(),
}
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


class PicturesController(Controller):
    """Pictures, and how they come along."""

    path = "/sdapi/v1"

    @post("/txt2img", status_code=200)
    async def make_from_text(
        self, request: HttpRequest, sdapi_desk: NamedDependency[SdapiDesk]
    ) -> Response[Any] | Stream:
        """Pictures from a prompt."""
        order = sdapi_desk.order(request, read_text_to_image(await read_json(request)))
        return await sdapi_desk.carry_out(request, order)

    @post("/img2img", status_code=200, request_max_body_size=None)
    async def make_from_picture(
        self,
        request: HttpRequest,
        sdapi_desk: NamedDependency[SdapiDesk],
        picture_bodies: NamedDependency[PictureBodies],
    ) -> Response[Any] | Stream:
        """Pictures from another one, which the body holds in base64."""
        return await sdapi_desk.carry_out(request, await _order(request, sdapi_desk, picture_bodies))

    @post("/extra-single-image", status_code=200, request_max_body_size=None)
    async def enlarge(
        self,
        request: HttpRequest,
        sdapi_desk: NamedDependency[SdapiDesk],
        picture_bodies: NamedDependency[PictureBodies],
    ) -> Response[Any] | Stream:
        """A picture enlarged."""
        return await sdapi_desk.enlarge(request, await _enlargement(request, sdapi_desk, picture_bodies))

    @get("/progress")
    async def read_progress(
        self, request: HttpRequest, sdapi_tasks: NamedDependency[SdapiTasks]
    ) -> Response[ProgressAnswer]:
        """How the caller's request goes, `?id_task=` names which."""
        query = request.query_params
        skip = _TRUTHS.get(query.get("skip_current_image", "false").lower())
        if skip is None:
            wrong = FieldError(("query", "skip_current_image"), "must be true or false", "type_error")
            raise ReverieError(ErrorCode.INVALID_FIELD, wrong.msg, fields=[wrong])
        task_id = query.get("id_task")
        told = sdapi_tasks.progress(owner_of(request), task_id=task_id, with_picture=not skip)
        return Response(told)

    @post("/interrupt", status_code=200)
    async def interrupt(
        self,
        request: HttpRequest,
        jobs: NamedDependency[Jobs],
        sdapi_tasks: NamedDependency[SdapiTasks],
    ) -> Response[None]:
        """Stop the caller's pictures, those that wait included; what there is of them is in the answers."""
        await _cancel(request, jobs, sdapi_tasks.to_interrupt(owner_of(request)))
        return Response(None, media_type="application/json")

    @post("/skip", status_code=200)
    async def skip(
        self,
        request: HttpRequest,
        jobs: NamedDependency[Jobs],
        sdapi_tasks: NamedDependency[SdapiTasks],
    ) -> Response[None]:
        """Stop the caller's pictures that are being made, and go on with those that wait."""
        await _cancel(request, jobs, sdapi_tasks.to_interrupt(owner_of(request), running_only=True))
        return Response(None, media_type="application/json")


@post("/internal/progress", status_code=200)
async def read_task_progress(
    request: HttpRequest, sdapi_tasks: NamedDependency[SdapiTasks]
) -> Response[TaskProgress]:
    """How the request with this `force_task_id` goes."""
    data = await read_json(request)
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name != "id_live_preview"}
    body = validate(ProgressQuestion, data, loc_prefix=BODY, forbid_unknown=True, null_is_absent=True)
    told = sdapi_tasks.task_progress(owner_of(request), body.id_task, with_picture=body.live_preview)
    return Response(told)


async def _order(request: HttpRequest, desk: SdapiDesk, bodies: PictureBodies) -> Order:
    """What an `img2img` asks for; its body is gone when this returns."""
    async with bodies.decoded(request) as data:
        body, resize_mode = read_image_to_image(data)
        return await desk.order_from_picture(request, body, resize_mode=resize_mode)


async def _enlargement(request: HttpRequest, desk: SdapiDesk, bodies: PictureBodies) -> SuperResolutionParams:
    async with bodies.decoded(request) as data:
        return await desk.enlargement(request, read_body(SingleEnlargement, data, _ENLARGEMENT_HARMLESS))


async def _cancel(request: HttpRequest, jobs: Jobs, job_ids: list[str]) -> None:
    """Ask them to stop; whose end comes first is no matter."""
    for job_id in job_ids:
        try:
            await jobs.cancel(job_id, by=identity_of(request))
        except ReverieError as error:
            if error.code not in (ErrorCode.JOB_FINISHED, ErrorCode.JOB_NOT_FOUND):
                raise
