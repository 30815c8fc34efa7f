"""`POST /v1/upload`: a picture for later jobs, checked before anybody can refer to it."""

from __future__ import annotations

from litestar import Response, post
from litestar.di import NamedDependency

from reverie_gateway.form_bytes import FormBytes
from reverie_gateway.forms import received_form
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.objects import available
from reverie_protocol.http_bodies import UploadAccepted
from reverie_storage.uploads import Uploads


@post("/v1/upload", status_code=200, request_max_body_size=None)
async def upload(
    request: HttpRequest,
    uploads: NamedDependency[Uploads],
    form_bytes: NamedDependency[FormBytes],
) -> Response[UploadAccepted]:
    """Take a picture; its reference is its owner's for 300 seconds."""
    owner = owner_of(request)
    async with received_form(request, form_bytes=form_bytes) as form, available():
        record = await uploads.keep(form.file, owner=owner)
    return Response(UploadAccepted(file_ref=record.reference))
