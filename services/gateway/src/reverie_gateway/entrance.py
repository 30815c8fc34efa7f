"""What a socket may say before it has said who it is, and how long that holds.

A browser cannot send a header with a WebSocket handshake, so the first message may be `AUTHENTICATE` instead.
Nothing of anybody's goes out before that.
"""

from __future__ import annotations

import asyncio
from typing import Final

from reverie_gateway.authentication import Gatekeeper
from reverie_gateway.events import encode
from reverie_gateway.identity import Identity
from reverie_gateway.outbox import Outbox
from reverie_gateway.refusal import unauthenticated
from reverie_gateway.session import Session, parse_frame, refusal_of
from reverie_protocol.client_messages import Authenticate
from reverie_protocol.errors import CLOSE_UNAUTHENTICATED, ErrorCode, ReverieError
from reverie_protocol.parsing import FrameError
from reverie_protocol.server_messages import Authenticated

#: How long a new socket may take to say who it is, in seconds.
AUTHENTICATE_S: Final = 10.0


class Entrance:
    """One socket's identity: asked for, told, renewed, and ended by closing the socket with 4401."""

    def __init__(self, outbox: Outbox, gatekeeper: Gatekeeper) -> None:
        self._outbox = outbox
        self._gatekeeper = gatekeeper
        self._closing: asyncio.TimerHandle | None = None

    def wait(self) -> None:
        """Close the socket unless somebody is let in within `AUTHENTICATE_S`."""
        self._close_in(AUTHENTICATE_S)

    def let_in(self, identity: Identity) -> None:
        """Keep the socket open for as long as this identity holds."""
        self._close_in(self._gatekeeper.remaining_s(identity))

    def receive(self, frame: str | bytes) -> Identity | None:
        """Who it is, once the client has proved it; everything else is answered with `unauthenticated`."""
        client_id = None
        try:
            message = parse_frame(frame)
            client_id = message.id
            if isinstance(message, Authenticate):
                return self._admit(message)
        except FrameError as error:
            client_id = error.client_id
        except ReverieError:
            pass
        refusal, _ = unauthenticated(again=False)
        self._outbox.put(encode(refusal_of(refusal, client_id)))
        return None

    def renew(self, session: Session, message: Authenticate) -> None:
        """Let a later token of the same owner and role take the place of the present one; no other does."""
        try:
            identity = self._gatekeeper.admit(message.session_token)
            _require_same(identity, session.identity)
        except ReverieError as error:
            session.refuse(error, message.id)
            return
        session.identity = identity
        self.let_in(identity)
        self._tell(identity, message)

    def leave(self) -> None:
        """Forget the time limit; idempotent."""
        if self._closing is not None:
            self._closing.cancel()

    def _admit(self, message: Authenticate) -> Identity:
        identity = self._gatekeeper.admit(message.session_token)
        self.let_in(identity)
        self._tell(identity, message)
        return identity

    def _tell(self, identity: Identity, message: Authenticate) -> None:
        told = Authenticated(
            id=message.id, user=identity.owner, admin=identity.admin, expires_at=identity.expires_at
        )
        self._outbox.put(encode(told))

    def _close_in(self, seconds: float | None) -> None:
        self.leave()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(max(0.0, seconds), self._outbox.close, CLOSE_UNAUTHENTICATED)


def _require_same(identity: Identity, present: Identity) -> None:
    """`forbidden` for somebody else: what the socket has been sent was for its first owner."""
    if (identity.owner, identity.admin) != (present.owner, present.admin):
        raise ReverieError(
            ErrorCode.FORBIDDEN, "this socket belongs to another owner or role; open another socket"
        )
