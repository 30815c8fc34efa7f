"""Liveness, readiness, metrics and the platform's state, for load balancers, operators and polling clients."""

from __future__ import annotations

from functools import cache

from litestar import Response, get
from litestar.di import NamedDependency

from reverie_gateway.identity import HttpRequest, identity_of
from reverie_gateway.openapi.document import encoded_document
from reverie_gateway.readiness import Readiness
from reverie_gateway.status import StatusBoard
from reverie_protocol.server_messages import SystemStatus
from reverie_runtime.health import Health
from reverie_runtime.metrics import CONTENT_TYPE, Metrics


@get("/health")
async def read_health() -> Response[dict[str, str]]:
    """The process lives and its event loop turns."""
    return Response({"status": "ok"})


@get("/ready")
async def read_readiness(
    health: NamedDependency[Health], status_board: NamedDependency[StatusBoard]
) -> Response[Readiness]:
    """Whether jobs can be taken and kept; 503 with the reasons otherwise."""
    reasons = await health.failures()
    readiness = Readiness("unavailable" if reasons else "ok", reasons, status_board.workers)
    return Response(readiness, status_code=503 if reasons else 200)


@get("/metrics")
async def read_metrics(process_metrics: NamedDependency[Metrics]) -> Response[bytes]:
    """Prometheus metrics."""
    return Response(process_metrics.render(), media_type=CONTENT_TYPE)


@get("/v1/system/status")
async def read_status(
    request: HttpRequest, status_board: NamedDependency[StatusBoard]
) -> Response[SystemStatus]:
    """What `system:status` says now."""
    return Response(status_board.message(identity_of(request)))


@get("/schema/openapi.json")
async def read_openapi() -> Response[bytes]:
    """The OpenAPI document."""
    return Response(_document(), media_type="application/json")


@cache
def _document() -> bytes:
    return encoded_document()
