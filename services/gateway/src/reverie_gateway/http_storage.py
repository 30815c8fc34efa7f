"""`/storage/{key}`: pictures by content, cacheable for ever; small texts by name, for their owner and a while."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Controller, Response, get, put, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath

from reverie_gateway.body import read_json
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.objects import Objects, Span, body_headers, etag_matches, requested_span
from reverie_gateway.problem import problem, request_id_of
from reverie_gateway.storage_probe import StorageProbe, StorageReport
from reverie_gateway.texts import Texts
from reverie_gateway.thumbnails import (
    MEDIA_TYPE,
    Thumbnails,
    refused_thumbnail,
    requested_side,
    thumbnail_of_text,
)
from reverie_protocol.errors import ReverieError
from reverie_protocol.http_bodies import StorageName, TextStored, TextToStore
from reverie_protocol.validation import validate
from reverie_storage.pictures import PictureRefused
from reverie_storage.port import StoredObject, content_type_of

IMMUTABLE: Final = "public, max-age=31536000, immutable"
#: What lies under a name may change, and is nobody else's.
REVALIDATED: Final = "private, no-cache"


class Shown(msgspec.Struct, frozen=True):
    """What a path shows: described, and its bytes where they are at hand already; else they are streamed."""

    stored: StoredObject
    etag: str
    cache_control: str
    content: bytes | None = None


class StorageController(Controller):
    """Stored objects, small texts, and whether the store works."""

    path = "/storage"

    @get("/health")
    async def read_health(self, storage_probe: NamedDependency[StorageProbe]) -> Response[StorageReport]:
        """Try the store now; 503 with the reason where it cannot be written."""
        report = await storage_probe.check()
        return Response(report, status_code=200 if report.ok else 503)

    @put("/{key:path}")
    async def put_text(
        self, request: HttpRequest, key: FromPath[str], texts: NamedDependency[Texts]
    ) -> Response[TextStored]:
        """Keep a small text for 300 seconds."""
        name = validate(StorageName, {"key": key.removeprefix("/")}, loc_prefix=("path",)).key
        body = validate(TextToStore, await read_json(request), loc_prefix=("body",), forbid_unknown=False)
        await texts.put(name, body.payload, owner=owner_of(request), loc=("path", "key"))
        return Response(TextStored(key=name))

    @route("/{key:path}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def read_object(
        self,
        request: HttpRequest,
        key: FromPath[str],
        objects: NamedDependency[Objects],
        texts: NamedDependency[Texts],
        thumbnails: NamedDependency[Thumbnails],
    ) -> Response[Any]:
        """The object, or the part that `Range` asks for."""
        key = key.removeprefix("/")
        side = requested_side(request.query_params.get("thumbnail"))
        if content_type_of(key) is None:
            shown = await _text(texts, key, owner=owner_of(request))
            if side is not None:
                raise thumbnail_of_text()
        else:
            shown = await _picture(await objects.stat(key), side, thumbnails)
        return await _answer(request, shown, objects)


async def _text(texts: Texts, key: str, *, owner: str) -> Shown:
    found = await texts.find(key, owner=owner)
    stored = StoredObject(key, len(found.content), found.content_type, found.created_at)
    return Shown(stored, found.etag, REVALIDATED, found.content)


async def _picture(found: StoredObject, side: int | None, thumbnails: Thumbnails) -> Shown:
    if side is None:
        return Shown(found, found.etag, IMMUTABLE)
    try:
        content = await thumbnails.of(found, side)
    except PictureRefused as error:
        raise refused_thumbnail(error) from None
    small = msgspec.structs.replace(found, size_bytes=len(content), content_type=MEDIA_TYPE)
    return Shown(small, f'{found.etag[:-1]}-{side}"', IMMUTABLE, content)


async def _answer(request: HttpRequest, shown: Shown, objects: Objects) -> Response[Any]:
    stored, headers = shown.stored, _headers(shown)
    if etag_matches(request.headers.get("if-none-match"), shown.etag):
        return Response(None, status_code=304, headers=headers)
    try:
        span = _span(request, shown)
    except ReverieError as error:
        unsatisfied = {"Content-Range": f"bytes */{stored.size_bytes}"}
        return problem(error, request_id_of(request), headers=unsatisfied)
    status_code = 200 if span is None else 206
    if span is None:
        span = Span(0, stored.size_bytes)
    else:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{stored.size_bytes}"
    if request.method == HttpMethod.HEAD:
        return Response(None, status_code=status_code, headers=headers | body_headers(stored, span))
    if shown.content is None:
        return await objects.stream(stored, span, headers=headers, status_code=status_code)
    content = shown.content[span.start : span.stop]
    headers |= body_headers(stored, span)
    return Response(content, status_code=status_code, headers=headers, media_type=stored.content_type)


def _span(request: HttpRequest, shown: Shown) -> Span | None:
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() != shown.etag:
        return None
    return requested_span(request.headers.get("range"), shown.stored.size_bytes)


def _headers(shown: Shown) -> dict[str, str]:
    return {
        "ETag": shown.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": shown.cache_control,
        "X-Storage-Key": shown.stored.key,
        "X-Storage-Created-At": f"{shown.stored.created_at:.3f}",
    }
