"""`WS /v1/ws`: the thin adapter between one WebSocket and its session."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect

from reverie_gateway.conversation import Conversation
from reverie_gateway.events import encode
from reverie_gateway.hub import Hub
from reverie_gateway.identity import identity_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.status import StatusBoard
from reverie_protocol.errors import CloseCode

#: How long a client that is to be closed may take to read what was sent before, in seconds; it costs us a buffer.
CLOSE_GRACE_S = 30.0

#: How long a new socket's first request may take to be a resume, before it is told the current state; seconds.
FIRST_REQUEST_S = 0.1

Socket = WebSocket[Any, Any, Any]
#: Hard bound of one message in bytes, beyond which the connection is closed; the session refuses politely below it.
MAX_MESSAGE_BYTES = 4 << 20


@websocket("/v1/ws")
async def converse(
    socket: Socket,
    jobs: NamedDependency[Jobs],
    hub: NamedDependency[Hub],
    status_board: NamedDependency[StatusBoard],
    metrics: NamedDependency[GatewayMetrics],
) -> None:
    """Serve one socket until either side ends it."""
    identity = identity_of(socket)
    await socket.accept()
    session = Session(identity, Outbox())
    session.deliver_status(encode(status_board.message(identity)))
    session.expect_resume()
    hub.join(session)
    tasks = {
        asyncio.create_task(_read(socket, session, Conversation(session, jobs=jobs, hub=hub))),
        asyncio.create_task(_write(socket, session.outbox, metrics)),
        asyncio.create_task(_overdue(session.outbox)),
    }
    opening = asyncio.get_running_loop().call_later(FIRST_REQUEST_S, session.open)
    try:
        with metrics.open_socket():
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        opening.cancel()
        hub.leave(session)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(socket: Socket, session: Session, conversation: Conversation) -> None:
    while True:
        message = await socket.receive()
        if message["type"] != "websocket.receive":
            return
        text = message.get("text")
        request = session.receive(text if text is not None else message.get("bytes") or b"")
        if request is not None:
            await conversation.carry_out(request)


async def _write(socket: Socket, outbox: Outbox, metrics: GatewayMetrics) -> None:
    """Send frames as fast as the client takes them; this is the only place that writes to the socket."""
    try:
        while True:
            frame = await outbox.next()
            if isinstance(frame, CloseCode):
                metrics.closed(frame)
                await socket.close(frame.code, frame.reason)
                return
            metrics.sent(frame)
            if isinstance(frame, str):
                await socket.send({"type": "websocket.send", "text": frame, "bytes": None})
            else:
                await socket.send({"type": "websocket.send", "text": None, "bytes": frame})
    except WebSocketDisconnect:
        return


async def _overdue(outbox: Outbox) -> None:
    """Return when a socket that is to be closed has had its time."""
    await outbox.until_closing()
    await asyncio.sleep(CLOSE_GRACE_S)
