"""`/v1/images/*` and `/v1/models`: OpenAI's images API, on top of the same jobs."""

from __future__ import annotations

from typing import Any, Final

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream
from msgspec.structs import replace

from reverie_gateway.body import read_json
from reverie_gateway.dialect import conflict
from reverie_gateway.form_bytes import FormBytes
from reverie_gateway.forms import Form, received_form
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.objects import available
from reverie_gateway.openai_images import ImageDesk
from reverie_gateway.openai_request import FORM_FIELDS, params_of, read_edit, read_generation
from reverie_gateway.status import StatusBoard
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.openai_bodies import ModelCard, ModelCards
from reverie_storage.uploads import Uploads

#: Stands for a picture while it is not kept yet.
_NOT_YET: Final = "not-yet"


class ImagesController(Controller):
    """Pictures from a prompt, and from other pictures."""

    path = "/v1/images"

    @post("/generations", status_code=200)
    async def generate_images(
        self, request: HttpRequest, image_desk: NamedDependency[ImageDesk]
    ) -> Response[Any] | Stream:
        """One to ten pictures from a prompt."""
        body = read_generation(await read_json(request))
        return await image_desk.answer(request, body, params_of(body))

    @post("/edits", status_code=200, request_max_body_size=None)
    async def edit_image(
        self,
        request: HttpRequest,
        image_desk: NamedDependency[ImageDesk],
        uploads: NamedDependency[Uploads],
        form_bytes: NamedDependency[FormBytes],
    ) -> Response[Any] | Stream:
        """A picture changed as a prompt says: all of it, or what is transparent in the mask."""
        return await _from_picture(request, image_desk, uploads, form_bytes, edit=True)

    @post("/variations", status_code=200, request_max_body_size=None)
    async def vary_image(
        self,
        request: HttpRequest,
        image_desk: NamedDependency[ImageDesk],
        uploads: NamedDependency[Uploads],
        form_bytes: NamedDependency[FormBytes],
    ) -> Response[Any] | Stream:
        """Pictures like another one."""
        return await _from_picture(request, image_desk, uploads, form_bytes, edit=False)


async def _from_picture(
    request: HttpRequest, desk: ImageDesk, uploads: Uploads, form_bytes: FormBytes, *, edit: bool
) -> Response[Any] | Stream:
    owner = owner_of(request)
    more = ("mask",) if edit else ()
    form_of_request = received_form(
        request, form_bytes=form_bytes, file_field="image", more_files=more, fields=FORM_FIELDS
    )
    async with form_of_request as form, available():
        _require_understood(form)
        body = read_edit(form.fields, prompt_required=edit)
        mask = form.more.get("mask")
        params = params_of(body)
        # Before the pictures are looked at: there may be nobody who could draw from them.
        likely = replace(params, initImage=_NOT_YET, maskImage=None if mask is None else _NOT_YET)
        desk.drafts(request, likely, body.n)
        image = await uploads.keep(form.file, owner=owner)
        params = replace(params, initImage=image.key)
        if mask is not None:
            kept = await uploads.keep_mask(mask, owner=owner, of="transparent")
            if (kept.width, kept.height) != (image.width, image.height):
                raise conflict(mask=f"has another size than the image, {image.width}x{image.height}")
            params = replace(params, maskImage=kept.key)
    return await desk.answer(request, body, params)


def _require_understood(form: Form) -> None:
    if form.skipped:
        several = "takes one file" if form.skipped & {"image", "mask"} else "unknown field"
        fields = [FieldError(("body", name), several, "unknown_field") for name in sorted(form.skipped)]
        names = ", ".join(sorted(form.skipped))
        raise ReverieError(ErrorCode.INVALID_FIELD, f"{names}: {several}", fields=fields)


@get("/v1/models")
async def list_models(status_board: NamedDependency[StatusBoard]) -> Response[ModelCards]:
    """The modes that can be used."""
    return Response(ModelCards(data=tuple(_cards(status_board).values())))


@get("/v1/models/{model:path}")
async def read_model(model: FromPath[str], status_board: NamedDependency[StatusBoard]) -> Response[ModelCard]:
    """One of them."""
    name, cards = model.removeprefix("/"), _cards(status_board)
    if name not in cards:
        known = ", ".join(cards) or "none"
        raise ReverieError(ErrorCode.MODE_NOT_FOUND, f"there is no mode {name[:200]!r}; there is {known}")
    return Response(cards[name])


def _cards(board: StatusBoard) -> dict[str, ModelCard]:
    """Each mode by its name; it is as old as the worker that has had it longest."""
    workers = sorted(board.serving(), key=lambda worker: worker.started_at, reverse=True)
    cards = {
        name: ModelCard(id=name, created=int(worker.started_at))
        for worker in workers
        for name in worker.modes
    }
    return dict(sorted(cards.items()))
