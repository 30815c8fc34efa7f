"""What can be set for a gateway, with its bounds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_runtime.settings import DrainSettings, LogSettings, NatsSettings


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP and WebSocket edge."""

    host: Annotated[str, Meta(min_length=1, description="Address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one")] = 4200
    generate_wait_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Longest wait of `POST /generate` before it answers 504")
    ] = 300.0
    max_queued: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Jobs that may wait at once; more are answered with 429")
    ] = 20_000
    retention_h: Annotated[
        float, Meta(gt=0, description="Hours for which a job that is over can be looked up")
    ] = 24.0
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins whose pages may use the gateway, such as `https://studio.example`, besides its "
            "own and those of this machine; `*` is any"
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="Host names under which a proxy on this machine passes requests on"),
    ] = ()


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where outputs are."""

    path: Annotated[str, Meta(min_length=1, description="Folder that all services share")] = "data/storage"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections of the gateway."""

    gateway: GatewaySettings = GatewaySettings()
    nats: NatsSettings = NatsSettings()
    storage: StorageSettings = StorageSettings()
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()
