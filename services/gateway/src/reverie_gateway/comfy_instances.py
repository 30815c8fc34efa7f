"""The ComfyUI instances as administrators see and change them."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from reverie_gateway.audit import Auditor
from reverie_gateway.identity import Action, Identity, require_administrator
from reverie_gateway.reach import reachable, shown
from reverie_jobs.comfy_instances import InstanceMirror, change_instance, remove_instance
from reverie_jobs.instance_urls import instance_url
from reverie_protocol.comfy_bodies import ComfyInstancePut
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.instances import ComfyHealth, ComfyInstance, ComfyStatus, InstanceName
from reverie_protocol.validation import validate
from reverie_runtime.bus.port import Bucket, Bus
from reverie_runtime.clock import Clock

#: What the audit calls a change of the table.
INSTANCE_PUT: Final = "comfy.instance.put"
INSTANCE_DELETE: Final = "comfy.instance.delete"
INSTANCE_READ: Final = "comfy.instance.read"
ADMIN: Final = "admin"


class _Named(msgspec.Struct, frozen=True):
    name: InstanceName


class Instances:
    """Reads from the mirror, writes the bucket; the bridge does what the table says."""

    def __init__(
        self, bus: Bus, bucket: Bucket, mirror: InstanceMirror, auditor: Auditor, *, clock: Clock
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._mirror = mirror
        self._auditor = auditor
        self._clock = clock

    def require_operator(self, by: Identity, action: str, target: str = "") -> None:
        """`forbidden` unless he may look after instances."""
        try:
            require_administrator(by, Action.MANAGE_INSTANCES)
        except ReverieError:
            self._auditor.note(action, by, target=target[:64], allowed=False)
            raise

    def all(self, *, by: Identity) -> tuple[ComfyInstance, ...]:
        """All of them, by name."""
        self.require_operator(by, INSTANCE_READ)
        return self._mirror.instances

    def read(self, name: str, *, by: Identity) -> ComfyInstance:
        """One of them; `not_found`."""
        self.require_operator(by, INSTANCE_READ, name)
        instance = self._mirror.get(name)
        if instance is None:
            raise _absent(name)
        return instance

    async def put(self, name: str, asked: ComfyInstancePut, *, by: Identity) -> tuple[ComfyInstance, bool]:
        """Enter an instance, or change what is wanted of one; what is in force, and whether it is new.

        `invalid_field` for a name or a URL that cannot be one, and for a new one without a URL.
        """
        self.require_operator(by, INSTANCE_PUT, name)
        validate(_Named, {"name": name}, loc_prefix=("path",))
        url = None if asked.url is None else _checked(asked.url)
        new = False

        def change(held: ComfyInstance | None) -> ComfyInstance:
            nonlocal new
            new = held is None
            return self._changed(held, name, asked, url)

        async with reachable(self._bus):
            instance = await change_instance(self._bucket, name, change)
        if instance is None:
            raise _absent(name)
        self._auditor.note(INSTANCE_PUT, by, target=name, detail=msgspec.json.encode(asked).decode())
        await shown(self._mirror, lambda: self._mirror.get(name) is not None)
        return instance, new

    async def delete(self, name: str, *, by: Identity) -> ComfyInstance:
        """Take an instance out: the bridge lets go of it, and its jobs go to others; `not_found`."""
        self.require_operator(by, INSTANCE_DELETE, name)
        validate(_Named, {"name": name}, loc_prefix=("path",))
        async with reachable(self._bus):
            instance = await remove_instance(self._bucket, name)
        if instance is None:
            raise _absent(name)
        self._auditor.note(INSTANCE_DELETE, by, target=name, detail=instance.url)
        await shown(self._mirror, lambda: self._mirror.get(name) is None)
        return instance

    def _changed(
        self, held: ComfyInstance | None, name: str, asked: ComfyInstancePut, url: str | None
    ) -> ComfyInstance:
        if held is None:
            if url is None:
                fields = [FieldError(("body", "url"), "is required for a new instance", "missing")]
                raise ReverieError(
                    ErrorCode.INVALID_FIELD, "url: is required for a new instance", fields=fields
                )
            held = ComfyInstance(name=name, url=url, status=ComfyStatus.DISCONNECTED, updated_at=0.0)
        wanted = {
            "enabled": asked.enabled,
            "draining": asked.draining,
            "tags": asked.tags,
            "max_prompts": asked.max_prompts,
        }
        changes = {field: value for field, value in wanted.items() if value is not None}
        moved = url is not None and url != held.url
        if moved:  # nothing is known of what is there
            held = ComfyInstance(
                name=name,
                url=url or "",
                enabled=held.enabled,
                draining=held.draining,
                tags=held.tags,
                max_prompts=held.max_prompts,
                status=ComfyStatus.DISCONNECTED,
                bridge=held.bridge,
                updated_at=0.0,
            )
        return replace(held, **changes, origin=ADMIN, updated_at=self._clock.time())


def health_of(instance: ComfyInstance) -> ComfyHealth:
    """What everybody may know of an instance: not where it is."""
    return ComfyHealth(
        name=instance.name,
        status=instance.status,
        reason=instance.reason,
        version=instance.version,
        draining=instance.draining,
        queue_pending=instance.queue_pending,
        queue_running=instance.queue_running,
    )


def _checked(url: str) -> str:
    try:
        return instance_url(url)
    except ValueError as error:
        fields = [FieldError(("body", "url"), str(error), "pattern")]
        raise ReverieError(ErrorCode.INVALID_FIELD, f"url: {error}", fields=fields) from None


def _absent(name: str) -> ReverieError:
    return ReverieError(ErrorCode.NOT_FOUND, f"there is no instance {name[:64]!r}")
