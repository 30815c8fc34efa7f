"""Records of what runs beside the workers: ComfyUI instances, modes in force, alerts and the audit log."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import Seconds
from reverie_protocol.quantities import Count, Gigabytes


class ComfyStatus(StrEnum):
    """Whether an instance can be given work.

    `disconnected` was not reached since it was entered, `reconnecting` was and is being sought; `unhealthy` answers
    but does no work (its worker thread is dead, say); `disabled` is not to be used.
    """

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    RECONNECTING = "reconnecting"
    UNHEALTHY = "unhealthy"
    DISABLED = "disabled"


class ComfyDevice(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A device of an instance, as ComfyUI reports it."""

    name: str
    type: str = ""
    vram_total_gb: Gigabytes = 0.0
    vram_free_gb: Gigabytes = 0.0


InstanceName = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$", description="1 to 32 of a-z, 0-9, `_` and `-`")
]


InstanceTag = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$", description="what its operator says of it")
]
MaxPrompts = Annotated[int, Meta(ge=1, le=2, description="prompts of ours inside it at once")]


class ComfyInstance(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One ComfyUI, key `<name>` of the KV bucket `comfy_instances`; also sent on `comfy.instance.<name>`.

    Up to `origin` it says what is wanted (an administrator's word, or the settings'), the rest what is (the
    bridge's).  Queue lengths count all of its prompts, others' too.
    """

    name: InstanceName
    url: Annotated[str, Meta(description="http(s) URL of the instance")]
    enabled: bool = True
    draining: Annotated[bool, Meta(description="takes no more work, finishes what it has")] = False
    tags: tuple[InstanceTag, ...] = ()
    max_prompts: MaxPrompts = 1
    origin: Annotated[str, Meta(description="who entered it: `settings` or `admin`")] = "settings"
    bridge: Annotated[str, Meta(description="key of the bridge that serves it")] = ""
    status: ComfyStatus
    reason: Annotated[str, Meta(description="stable code of why it is not connected; empty when it is")] = ""
    detail: Annotated[str, Meta(description="the same as one sentence")] = ""
    version: str = ""
    devices: tuple[ComfyDevice, ...] = ()
    last_connected: Seconds | None = None
    last_disconnected: Seconds | None = None
    reconnect_attempts: Count = 0
    disconnects: Annotated[dict[str, int], Meta(description="how often it was lost, by reason")] = {}
    queue_pending: Count = 0
    queue_running: Count = 0
    updated_at: Seconds


class ComfyHealth(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How one ComfyUI instance does, in `system:status`; queue lengths count others' prompts too."""

    name: str
    status: ComfyStatus
    reason: str = ""
    version: str = ""
    draining: bool = False
    queue_pending: Count = 0
    queue_running: Count = 0


class ActiveMode(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The mode one worker was switched to, key `<worker name>` of the KV bucket `modes`; kept over restarts."""

    worker: str
    mode: str
    updated_at: Seconds


class AlertLevel(StrEnum):
    """How much an alert matters."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


InUnit = Annotated[float, Meta(description="in the unit that `unit` names")]


class AlertCode(StrEnum):
    """What the monitor alerts about.  Other services may have codes of their own."""

    VRAM_HIGH = "vram_high"
    GPU_HOT = "gpu_hot"
    GPU_THROTTLED = "gpu_throttled"
    GPU_ECC = "gpu_ecc"
    GPU_LOST = "gpu_lost"
    GPU_UNREADABLE = "gpu_unreadable"
    MEMORY_HIGH = "memory_high"
    DISK_LOW = "disk_low"
    STORAGE_BROKEN = "storage_broken"
    WORKER_GONE = "worker_gone"
    SERVICE_DOWN = "service_down"


class SystemAlert(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Something an operator should know, on `system.alert`: once as it begins, changes its level or ends.

    While it lasts it is repeated, for those who subscribed later.  `key` names what it is about; `resolved` ends
    the alert of the same key.  `value` and `threshold` are absent where the alert is about a fact.
    """

    key: str
    code: Annotated[str, Meta(description="stable code, such as gpu_hot")] = ""
    level: AlertLevel
    source: Annotated[str, Meta(description="service and instance that noticed")]
    message: str
    value: InUnit | None = None
    threshold: InUnit | None = None
    unit: Annotated[str, Meta(description="unit of `value` and `threshold`, such as `%` or `°C`")] = ""
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
