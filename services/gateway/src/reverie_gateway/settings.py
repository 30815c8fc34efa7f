"""What can be set for a gateway, with its bounds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_gateway.origin import is_loopback_name
from reverie_runtime.patience import Patience
from reverie_runtime.settings import DrainSettings, LogSettings, NatsSettings
from reverie_storage.settings import StorageSettings


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
    base64_mb: Annotated[
        float,
        Meta(
            gt=0,
            le=1024,
            description="Largest body in MiB of requests that hold pictures as base64 (`/sdapi/v1/img2img`)",
        ),
    ] = 48.0
    retention_h: Annotated[
        float, Meta(gt=0, description="Hours for which a job that is over can be looked up")
    ] = 24.0
    request_silence_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Longest time in seconds for the head of a request, and longest silence within its body; "
            "then the connection is closed, where possible with a 408",
        ),
    ] = 8.0
    request_bytes_per_s: Annotated[
        float, Meta(gt=0, description="Least speed of a request's body in bytes per second")
    ] = 256.0
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

    @property
    def patience(self) -> Patience:
        """What is borne of a slow client."""
        return Patience(self.request_silence_s, self.request_bytes_per_s)


#: Shortest HS256 secret, in bytes: as long as the hash, as RFC 7518 asks.
MIN_KEY_BYTES = 32


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens are believed."""

    key: Annotated[
        str | None,
        Meta(description="Secret of HS256 tokens, at least 32 bytes; with it every request needs a token"),
    ] = None
    public_key: Annotated[
        str | None, Meta(description="Ed25519 public key of EdDSA tokens: PEM text, or a file of it")
    ] = None
    issuer: Annotated[str | None, Meta(description="What `iss` of a token must be")] = None
    audience: Annotated[
        str | None, Meta(description="What `aud` of a token must hold; without it a token must have none")
    ] = None
    max_age_s: Annotated[
        float, Meta(gt=0, description="Longest life of a token in seconds; one that lives longer is refused")
    ] = 3600.0
    open: Annotated[
        bool,
        Meta(
            description="Without a key, serve everybody as the one user `local` although others can reach "
            "`gateway.host`; with a key it has no effect"
        ),
    ] = False

    def __post_init__(self) -> None:
        """ValueError for a secret that could be guessed."""
        if self.key is not None and len(self.key.encode()) < MIN_KEY_BYTES:
            raise ValueError(f"auth.key is shorter than {MIN_KEY_BYTES} bytes")

    @property
    def has_key(self) -> bool:
        """Whether tokens are asked for."""
        return self.key is not None or self.public_key is not None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections of the gateway."""

    gateway: GatewaySettings = GatewaySettings()
    nats: NatsSettings = NatsSettings()
    storage: StorageSettings = StorageSettings()
    auth: AuthSettings = AuthSettings()
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()

    def __post_init__(self) -> None:
        """ValueError where strangers could use the gateway without a token and nobody said that they may."""
        if not (self.auth.has_key or self.auth.open or is_loopback_name(self.gateway.host)):
            raise ValueError(
                f"gateway.host is {self.gateway.host}, which others can reach: set auth.key (or auth.public_key), "
                "or auth.open = true to serve everybody as one user"
            )
