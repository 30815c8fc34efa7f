"""`GET /storage/{key}`: what jobs have made, content-addressed and therefore cacheable for ever."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath

from reverie_gateway.identity import HttpRequest
from reverie_gateway.objects import Objects, Span, body_headers, etag_matches, requested_span
from reverie_gateway.problem import problem, request_id_of
from reverie_gateway.storage_probe import StorageProbe, StorageReport
from reverie_protocol.errors import ReverieError
from reverie_storage.port import StoredObject

IMMUTABLE = "public, max-age=31536000, immutable"


class StorageController(Controller):
    """Reads of stored objects, and whether the store works."""

    path = "/storage"

    @get("/health")
    async def read_health(self, storage_probe: NamedDependency[StorageProbe]) -> Response[StorageReport]:
        """Try the store now; 503 with the reason where it cannot be written."""
        report = await storage_probe.check()
        return Response(report, status_code=200 if report.ok else 503, headers={"Cache-Control": "no-store"})

    @route("/{key:path}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def read_object(
        self, request: HttpRequest, key: FromPath[str], objects: NamedDependency[Objects]
    ) -> Response[Any]:
        """The object, or the part that `Range` asks for."""
        found = await objects.stat(key.removeprefix("/"))
        headers = _headers(found)
        if etag_matches(request.headers.get("if-none-match"), found.etag):
            return Response(None, status_code=304, headers=headers)
        try:
            span = _span(request, found)
        except ReverieError as error:
            unsatisfied = {"Content-Range": f"bytes */{found.size_bytes}"}
            return problem(error, request_id_of(request), headers=unsatisfied)
        status_code = 200 if span is None else 206
        if span is None:
            span = Span(0, found.size_bytes)
        else:
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{found.size_bytes}"
        if request.method == HttpMethod.HEAD:
            headers |= body_headers(found, span)
            return Response(None, status_code=status_code, headers=headers)
        return await objects.stream(found, span, headers=headers, status_code=status_code)


def _span(request: HttpRequest, found: StoredObject) -> Span | None:
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() != found.etag:
        return None
    return requested_span(request.headers.get("range"), found.size_bytes)


def _headers(found: StoredObject) -> dict[str, str]:
    return {
        "ETag": found.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": IMMUTABLE,
        "X-Storage-Key": found.key,
        "X-Storage-Created-At": f"{found.created_at:.3f}",
    }
