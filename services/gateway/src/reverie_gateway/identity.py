"""Who somebody is, and the one rule of what he may do."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection

from reverie_protocol.errors import ErrorCode, ReverieError

#: A request of this application; it keeps no user, auth or state in the framework's own places.
HttpRequest = Request[Any, Any, Any]

#: Where the authentication layer leaves the identity in a connection's ASGI state.
STATE_KEY: Final = "identity"


class Identity(msgspec.Struct, frozen=True):
    """Somebody who has proved who he is: his jobs carry `owner`; `expires_at` (epoch seconds) ends the proof."""

    owner: str
    admin: bool = False
    expires_at: float | None = None


#: Everybody, where the gateway asks nobody for a proof.
LOCAL: Final = Identity("local", admin=True)


class Action(Enum):
    """What somebody may want to do: the first ones to one job, the last ones to the platform."""

    SEE = auto()
    CANCEL = auto()
    REPRIORITISE = auto()
    RETRY = auto()
    CONTROL_QUEUE = auto()
    READ_METRICS = auto()
    MANAGE_MODELS = auto()
    MANAGE_INSTANCES = auto()
    SEND_GRAPHS = auto()


#: What concerns everybody and is for administrators.
_ADMINISTRATIVE: Final = frozenset(
    {
        Action.CONTROL_QUEUE,
        Action.READ_METRICS,
        Action.MANAGE_MODELS,
        Action.MANAGE_INSTANCES,
        Action.SEND_GRAPHS,  # a graph of nodes can reach further than the parameters of a workflow
    }
)


def may(identity: Identity, action: Action, owner: str | None = None) -> bool:
    """Whether `identity` may do this to a job of `owner`, or to the platform: the only rule there is.

    Where the answer is no, a job does not exist for him: callers answer `job_not_found`, never `forbidden`.
    """
    if identity.admin:
        return True
    return action not in _ADMINISTRATIVE and owner == identity.owner


def require_administrator(identity: Identity, action: Action) -> None:
    """`forbidden` unless he may do this to the platform, which is no secret."""
    if not may(identity, action):
        raise ReverieError(ErrorCode.FORBIDDEN, "this is for administrators")


def known_identity(connection: ASGIConnection[Any, Any, Any, Any]) -> Identity | None:
    """Who this connection belongs to; None where nobody has proved anything."""
    identity = connection.scope.get("state", {}).get(STATE_KEY)
    return identity if isinstance(identity, Identity) else None


def identity_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Identity:
    """Who this connection belongs to; `unauthenticated` where nobody has proved anything."""
    identity = known_identity(connection)
    if identity is not None:
        return identity
    raise ReverieError(ErrorCode.UNAUTHENTICATED, "say who you are: Authorization: Bearer <token>")


def owner_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The owner of everything this connection submits."""
    return identity_of(connection).owner
