"""Stable codes of why an instance is not, or was not, connected."""

from __future__ import annotations

from enum import StrEnum


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
    raise NotImplementedError
