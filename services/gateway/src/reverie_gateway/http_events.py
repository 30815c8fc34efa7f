"""`GET /v1/events`: the WebSocket's events as server-sent events, for clients that have no WebSocket.

The id of an event is `<epoch>:<seq>`; a browser sends the last one back as `Last-Event-ID` when it reconnects, and
every transition that it missed follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.response import Stream

from reverie_gateway.authentication import Gatekeeper
from reverie_gateway.entrance import Entrance
from reverie_gateway.events import encode
from reverie_gateway.frame import payload_of
from reverie_gateway.hub import Hub
from reverie_gateway.identity import HttpRequest, identity_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.status import BACKENDS_KEY, StatusBoard
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.server_messages import HelloOk, Resumed

#: A comment goes out after this much silence, so that proxies and clients know the stream is alive; seconds.
KEEPALIVE_S = 15.0
RECONNECT_MS = 500

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
#: Kinds whose `seq` a client may resume from; progress repeats the revision of its job.
_TRANSITIONS = frozenset({"job:state", "job:complete", "job:error", "hello:ok"})


class _Head(msgspec.Struct, gc=False):
    type: str
    seq: int = 0


_head = msgspec.json.Decoder(_Head)


@get("/v1/events", media_type="text/event-stream")
async def stream_events(
    request: HttpRequest,
    jobs: NamedDependency[Jobs],
    hub: NamedDependency[Hub],
    gatekeeper: NamedDependency[Gatekeeper],
    status_board: NamedDependency[StatusBoard],
) -> Stream:
    """The owner's events from now on, or from `Last-Event-ID` (also `?cursor=`)."""
    last = request.headers.get("last-event-id") or request.query_params.get("cursor")
    cursor = None if last is None else _cursor(last)
    outbox, ready = Outbox(), asyncio.Event()
    outbox.on_ready = ready.set
    session = Session(identity_of(request), outbox)
    session.deliver_status(encode(status_board.message(session.identity)))
    session.outbox.put_latest(BACKENDS_KEY, encode(status_board.backends()))
    events = _events(session, ready, cursor, Entrance(outbox, gatekeeper), jobs=jobs, hub=hub)
    return Stream(events, media_type="text/event-stream", headers=_HEADERS)


async def _events(
    session: Session,
    ready: asyncio.Event,
    cursor: tuple[str | None, int] | None,
    entrance: Entrance,
    *,
    jobs: Jobs,
    hub: Hub,
) -> AsyncIterator[str]:
    try:  # from the beginning: a client may leave while it is still being caught up
        entrance.let_in(session.identity)
        await _begin(session, cursor, jobs=jobs, hub=hub)
        yield f"retry: {RECONNECT_MS}\n\n"
        while session.outbox.closing is None or session.outbox:
            if not await _is_ready(ready):
                yield ": alive\n\n"
            while frames := session.outbox.take():
                yield "".join(server_sent(payload_of(frame), epoch=jobs.epoch) for frame in frames)
    finally:
        entrance.leave()
        hub.leave(session)


async def _begin(session: Session, cursor: tuple[str | None, int] | None, *, jobs: Jobs, hub: Hub) -> None:
    """Everything missed, or the current state, and then all that comes."""
    session.expect_resume()
    hub.join(session)
    if cursor is not None:
        epoch, seq = cursor
        missed = await hub.resume(session, seq, epoch)
        session.answer(Resumed(recovered=missed is not None, from_=seq, seq=jobs.revision, epoch=jobs.epoch))
        hub.catch_up(session, missed)
    hub.open(session)
    session.answer(HelloOk(previews=False, seq=jobs.revision, epoch=jobs.epoch))


async def _is_ready(ready: asyncio.Event) -> bool:
    """Wait until there is something to send; false after a while of silence."""
    try:
        async with asyncio.timeout(KEEPALIVE_S):
            await ready.wait()
    except TimeoutError:
        return False
    ready.clear()
    return True


def server_sent(message: bytes, *, epoch: str) -> str:
    """A message in the event-stream format, with an id where a client may resume from it."""
    head = _head.decode(message)
    identified = f"id: {epoch}:{head.seq}\n" if head.type in _TRANSITIONS else ""
    return f"{identified}event: {head.type}\ndata: {message.decode()}\n\n"


def _cursor(text: str) -> tuple[str | None, int]:
    """`<epoch>:<seq>` or a bare `<seq>`."""
    epoch, _, seq = text.rpartition(":")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 20):
        allowed = "must be the id of an earlier event, or its seq"
        raise ReverieError(
            ErrorCode.INVALID_FIELD,
            f"Last-Event-ID: {allowed}",
            fields=[FieldError(("header", "Last-Event-ID"), allowed, "pattern")],
        )
    return epoch or None, int(seq)
