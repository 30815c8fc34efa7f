"""Who a connection belongs to: the one place that knows."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection

#: A request of this application; it keeps no user, auth or state in the framework's own places.
HttpRequest = Request[Any, Any, Any]

LOCAL_OWNER = "local"


def owner_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The owner of everything this connection submits and sees.  Every caller of a local gateway is one person."""
    del connection
    return LOCAL_OWNER
