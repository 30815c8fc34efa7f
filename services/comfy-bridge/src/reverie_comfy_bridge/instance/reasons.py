"""Stable codes of why an instance is not, or was not, connected."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

#: RFC 6455, 7.1.5: the connection ended without a close frame.
_NO_CLOSE_FRAME: Final = 1006


class Reason(StrEnum):
    """What is the matter.  The first group ends a socket, the second is about an instance that answers."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    NAME_UNKNOWN = "name_unknown"
    HANDSHAKE_FAILED = "handshake_failed"
    CLOSED_BY_SERVER = "closed_by_server"
    CONNECTION_LOST = "connection_lost"
    HALF_OPEN = "half_open"
    DEAF_SOCKET = "deaf_socket"
    CLOSED_BY_US = "closed_by_us"

    HTTP_FAILED = "http_failed"
    STALLED = "stalled"
    JOB_SILENT = "job_silent"
    DEAD_WORKER = "dead_worker"
    RESTARTED = "restarted"
    DISABLED = "disabled"


def close_reason(code: int | None) -> Reason:
    """Why a socket closed, by its close code (None or 1006: without a close frame)."""
    return Reason.CONNECTION_LOST if code is None or code == _NO_CLOSE_FRAME else Reason.CLOSED_BY_SERVER
