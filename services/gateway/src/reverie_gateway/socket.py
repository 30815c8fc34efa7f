"""`WS /v1/ws`: the thin adapter between one WebSocket and its session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import WebSocket, websocket
from litestar.di import NamedDependency

from reverie_gateway.authentication import Gatekeeper
from reverie_gateway.conversation import Conversation
from reverie_gateway.dream_desk import DreamDesk
from reverie_gateway.entrance import Entrance
from reverie_gateway.events import encode
from reverie_gateway.hub import Hub
from reverie_gateway.identity import Identity, known_identity
from reverie_gateway.jobs import Jobs
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.status import BACKENDS_KEY, StatusBoard
from reverie_gateway.texts import Texts
from reverie_gateway.wire import wire_of
from reverie_gateway.writer import Turn, Writer
from reverie_protocol.client_messages import Authenticate

#: How long a new socket's first request may take to be a resume, before it is told the current state; seconds.
FIRST_REQUEST_S = 0.3

Socket = WebSocket[Any, Any, Any]
#: Hard bound of one message in bytes, beyond which the connection is closed; the session refuses politely below it.
MAX_MESSAGE_BYTES = 4 << 20


@websocket("/v1/ws")
async def converse(
    socket: Socket,
    *,
    jobs: NamedDependency[Jobs],
    hub: NamedDependency[Hub],
    gatekeeper: NamedDependency[Gatekeeper],
    status_board: NamedDependency[StatusBoard],
    metrics: NamedDependency[GatewayMetrics],
    texts: NamedDependency[Texts],
    dream_desk: NamedDependency[DreamDesk],
    turn: NamedDependency[Turn],
) -> None:
    """Serve one socket until either side ends it."""
    wire = wire_of(socket.scope)
    await socket.accept()
    outbox = Outbox()
    writer = Writer(outbox, wire, turn)
    entrance = Entrance(outbox, gatekeeper)
    frames = read_frames(socket, outbox)
    try:
        with metrics.open_socket():
            identity = await _enter(known_identity(socket), entrance, frames)
            if identity is None:
                return
            session = Session(identity, outbox)
            session.deliver_status(encode(status_board.message(identity)))
            session.outbox.put_latest(BACKENDS_KEY, encode(status_board.backends()))
            session.expect_resume()
            writer.follow(session, hub.join(session))
            opening = asyncio.get_running_loop().call_later(FIRST_REQUEST_S, hub.open, session)
            try:
                conversation = Conversation(session, jobs=jobs, hub=hub, texts=texts, dream_desk=dream_desk)
                await _read(frames, session, conversation, entrance)
            finally:
                opening.cancel()
                hub.leave(session)
    finally:
        entrance.leave()
        writer.stop()


async def read_frames(socket: Socket, outbox: Outbox) -> AsyncIterator[str | bytes]:
    """What the client sends until it leaves; nothing counts any more once the socket is to be closed."""
    while (message := await socket.receive())["type"] == "websocket.receive":
        text = message.get("text")
        if outbox.closing is None:
            yield text if text is not None else message.get("bytes") or b""


async def _enter(
    identity: Identity | None, entrance: Entrance, frames: AsyncIterator[str | bytes]
) -> Identity | None:
    """Who it is: as the handshake said, or one of the first messages; None if the client leaves before that."""
    if identity is not None:
        entrance.let_in(identity)
        return identity
    entrance.wait()
    async for frame in frames:
        identity = entrance.receive(frame)
        if identity is not None:
            return identity
    return None


async def _read(
    frames: AsyncIterator[str | bytes], session: Session, conversation: Conversation, entrance: Entrance
) -> None:
    async for frame in frames:
        request = session.receive(frame)
        if isinstance(request, Authenticate):
            entrance.renew(session, request)
        elif request is not None:
            await conversation.carry_out(request)
