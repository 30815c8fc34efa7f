"""Finds out who sends a request before any route sees it: whatever is not named here as open needs a token.

A plain ASGI layer, so that a route that is added later is closed by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from reverie_gateway.identity import LOCAL, STATE_KEY, Action, Identity, may
from reverie_gateway.origin import is_loopback_name
from reverie_gateway.refusal import refuse, unauthenticated
from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import TokenError, Verifier, read_public_key
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_runtime.clock import Clock
from reverie_runtime.http_server import StartError
from reverie_storage.port import content_type_of

#: Health for load balancers, and what is the same for everybody.
OPEN_PATHS: Final = frozenset({"/", "/health", "/ready", "/schema/openapi.json"})
#: Objects by content: who knows the key of one was told it (docs/adr/0009).  Texts by name are their owner's.
OPEN_PREFIX: Final = "/storage/"
METRICS_PATH: Final = "/metrics"
#: Says that a request was passed on by a proxy, so that its sender is not the one who is connected.
_FORWARDED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
_SCHEME: Final = "bearer"

log = structlog.get_logger(__name__)


class Gatekeeper:
    """Turns what somebody shows into his identity; without a key everybody is `local`."""

    def __init__(self, verifier: Verifier | None, *, clock: Clock) -> None:
        self._verifier = verifier
        self._clock = clock

    @property
    def asks(self) -> bool:
        """Whether tokens are needed at all."""
        return self._verifier is not None

    def admit(self, token: str | None) -> Identity:
        """Who shows this token; `unauthenticated` if it is missing or not to be believed."""
        if self._verifier is None:
            return LOCAL
        if token is None:
            raise unauthenticated(again=False)[0]
        try:
            return self._verifier.verify(token, now=self._clock.time())
        except TokenError as error:
            log.info("token refused", reason=str(error))
            raise unauthenticated(again=True)[0] from None

    def remaining_s(self, identity: Identity) -> float | None:
        """Seconds for which an identity still holds; None if for ever."""
        return None if identity.expires_at is None else identity.expires_at - self._clock.time()


class Authentication:
    """Lets open paths and bearers of a valid token pass, and leaves their identity in the connection's state."""

    def __init__(self, app: ASGIApp, *, gatekeeper: Gatekeeper) -> None:
        self._app = app
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        shown = shown_tokens(scope)
        try:
            identity = self._identify(scope, shown)
        except ReverieError as error:
            _, challenge = unauthenticated(again=bool(shown))
            asks = error.code is ErrorCode.UNAUTHENTICATED
            await refuse(scope, send, error, headers=challenge if asks else None)
            return
        if identity is not None:
            scope.setdefault("state", {})[STATE_KEY] = identity
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope, shown: list[str]) -> Identity | None:
        """Who it is; None where nobody has to say."""
        if not self._gatekeeper.asks:
            return self._gatekeeper.admit(None)
        path = scope["path"]
        if scope["type"] == ScopeType.HTTP and is_open(path):
            return None
        if path == METRICS_PATH and not shown and _comes_from_this_machine(scope):
            return None
        if len(shown) > 1:
            raise unauthenticated(again=True)[0]
        if scope["type"] == ScopeType.WEBSOCKET and not shown:
            return None  # its first message says who it is: a browser cannot send a header
        identity = self._gatekeeper.admit(shown[0] if shown else None)
        if path == METRICS_PATH and not may(identity, Action.READ_METRICS):
            raise ReverieError(ErrorCode.FORBIDDEN, "metrics are for administrators and for this machine")
        return identity


def is_open(path: str) -> bool:
    """Whether a path is served to everybody."""
    return path in OPEN_PATHS or content_type_of(path.removeprefix(OPEN_PREFIX)) is not None


def shown_tokens(scope: Scope) -> list[str]:
    """What stands in the Authorization headers, empty text for another scheme.  Query strings do not count."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
    parted = (value.strip().partition(" ") for value in given)
    return [token.strip() if scheme.lower() == _SCHEME else "" for scheme, _, token in parted]


def verifier_of(settings: AuthSettings) -> Verifier | None:
    """What the settings ask to be shown; None where they ask for nothing.  StartError for an unusable key."""
    if not settings.has_key:
        return None
    public_key = None
    if settings.public_key is not None:
        text = settings.public_key
        try:
            pem = text if "-----BEGIN" in text else Path(text).read_text(encoding="ascii")
            public_key = read_public_key(pem)
        except (OSError, UnicodeError):
            raise StartError("auth.public_key is neither PEM text nor a file that can be read") from None
        except ValueError as error:
            raise StartError(f"auth.public_key is {error}") from None
    return Verifier(
        secret=settings.key,
        public_key=public_key,
        issuer=settings.issuer,
        audience=settings.audience,
        max_age_s=settings.max_age_s,
    )


def _comes_from_this_machine(scope: Scope) -> bool:
    client = scope.get("client")
    direct = not any(name in _FORWARDED for name, _ in scope["headers"])
    return direct and client is not None and is_loopback_name(client[0])
