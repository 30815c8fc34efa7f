"""`/view` and `/upload`."""

# ruff: noqa: D103 -- a handler is named by its method and path

from __future__ import annotations

import email.parser
import email.policy

from reverie_testing.fake_comfy.files import Traversal
from reverie_testing.fake_comfy.instance import Instance
from reverie_testing.fake_comfy.pictures import converted
from reverie_testing.fake_comfy.wire import NOT_FOUND, TROUBLE, Request, Response, answer


def get_view(instance: Instance, request: Request, _: str) -> Response:
    query = request.query
    if instance.faults.unreadable_files:
        return TROUBLE
    if "filename" not in query:
        return Response(404)
    name, kind = query["filename"], query.get("type", "output")
    try:
        data = instance.files.read(kind, query.get("subfolder", ""), name)
    except Traversal:
        return Response(400)
    if data is None:
        return Response(404)
    disposition = {"Content-Disposition": f'filename="{name}"'}
    if "preview" in query:
        wanted = query["preview"].split(";")[0]
        wanted = wanted if wanted in ("webp", "jpeg") else "webp"
        return Response(200, converted(data, wanted), f"image/{wanted}", disposition)
    return Response(200, data, content_type(name), disposition)


def content_type(name: str) -> str:
    """By the name's end."""
    kinds = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
    return kinds.get(name.rpartition(".")[2].lower(), "application/octet-stream")


def post_upload(instance: Instance, request: Request, rest: str) -> Response:
    if rest != "image":
        return NOT_FOUND
    if instance.faults.refused_uploads:
        return TROUBLE
    fields: dict[str, str] = {}
    data, filename = b"", None
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        if name == "image":
            data, filename = payload, part.get_filename()
        else:
            fields[str(name)] = payload.decode()
    if filename is None:
        return Response(400)
    if not filename:
        return TROUBLE
    overwrite = fields.get("overwrite") in ("true", "1")
    try:
        kind = fields.get("type", "input")
        kept = instance.files.upload(kind, fields.get("subfolder", ""), filename, data, overwrite=overwrite)
    except Traversal:
        return Response(400)
    return answer(kept)
