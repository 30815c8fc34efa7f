"""Records of what runs beside the workers: ComfyUI instances, modes in force, alerts and the audit log."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import Seconds
from reverie_protocol.quantities import Count


class ComfyStatus(StrEnum):
    """Whether an instance can be given work; `unknown` until it was first reached."""

    UNKNOWN = "unknown"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    DISCONNECTED = "disconnected"
    DISABLED = "disabled"


class ComfyInstance(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One ComfyUI, key `<name>` of the KV bucket `comfy_instances`; also sent on `comfy.instance.<name>`."""

    name: str
    url: Annotated[str, Meta(description="http(s) URL of the instance")]
    status: ComfyStatus
    version: str = ""
    last_connected: Seconds | None = None
    last_error: str = ""
    queue_pending: Count = 0
    queue_running: Count = 0
    updated_at: Seconds


class ActiveMode(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The mode of one worker, key `<worker name>` of the KV bucket `modes`.

    `wanted` is what was asked for last; it differs from `active` while the worker switches, and `error` says why
    a switch failed.
    """

    worker: str
    wanted: str | None = None
    active: str | None = None
    error: str = ""
    updated_at: Seconds


class AlertLevel(StrEnum):
    """How much an alert matters."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class SystemAlert(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Something an operator should know, on `system.alert`; `resolved` ends the alert of the same `key`."""

    key: str
    level: AlertLevel
    source: Annotated[str, Meta(description="service and instance that noticed")]
    message: str
    resolved: bool = False
    at: Seconds


class AuditEvent(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One administrative or security event, on `audit.<action>`, kept 30 days by the stream `AUDIT`.

    It never holds prompt text or secrets.
    """

    action: Annotated[str, Meta(description="dotted, such as mode.switch or auth.refused")]
    user: str
    target: str = ""
    allowed: bool
    detail: str = ""
    request_id: str = ""
    at: Seconds
