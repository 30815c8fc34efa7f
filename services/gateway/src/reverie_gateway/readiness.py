"""Whether this gateway can take work, as far as NATS itself does not answer it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from reverie_gateway.storage_probe import StorageProbe
from reverie_jobs.mirror import JobMirror, WorkerMirror
from reverie_runtime.health import Health


class Readiness(msgspec.Struct, frozen=True):
    """Answer of `GET /ready`; `reasons` says by part what is missing, empty when ready.

    Ready is a gateway that can take jobs and keep them.  Without `workers` they wait, which is no reason to send
    clients to another gateway: that one has no other workers.
    """

    status: Literal["ok", "unavailable"]
    reasons: dict[str, str]
    workers: Annotated[int, msgspec.Meta(ge=0, description="workers that take jobs now")]


def declare_checks(health: Health, jobs: JobMirror, workers: WorkerMirror, storage: StorageProbe) -> None:
    """Make readiness depend on complete mirrors and a store that can be written."""

    async def check_mirrors() -> str | None:
        complete = jobs.ready.is_set() and workers.ready.is_set()
        return None if complete else "there is no complete picture of the jobs yet"

    async def check_storage() -> str | None:
        return (await storage.check()).reason or None

    health.add("mirror", check_mirrors)
    health.add("storage", check_storage)
