"""Whatever a turn brings and whoever lags: each socket is sent every message once, in order, and true progress."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from reverie_gateway.audience import Audience
from reverie_gateway.events import Delivery, Event
from reverie_gateway.frame import text_frame
from reverie_gateway.identity import LOCAL
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.wire import NO_DESCRIPTOR
from reverie_gateway.writer import Turn, Writer
from reverie_protocol.errors import CLOSE_GOING_AWAY, CloseCode
from reverie_protocol.server_messages import Pong

JOBS = ("a", "b", "c")
SOCKETS = 3


class Line:
    """A socket's end as audience and writer see it: it takes what is written, unless it is congested."""

    def __init__(self) -> None:
        self.congested = False
        self.on_relief: Callable[[], None] | None = None
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._taken = b""
        self.left_over = 0

    @property
    def descriptor(self) -> int:
        return NO_DESCRIPTOR if self.congested else self._near.fileno()

    @property
    def frames(self) -> bytes:
        """All that was written, whichever way."""
        with contextlib.suppress(BlockingIOError):
            while data := self._far.recv(1 << 20):
                self._taken += data
        return self._taken

    def write(self, frames: bytes) -> None:
        self._taken = self.frames + frames
        self.left_over += len(frames)

    def shut(self) -> None:
        """Take nothing directly: as a connection that is broken, and not known to be."""
        self._near.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        self._near.close()
        self._far.close()

    def close(self, code: CloseCode) -> None:
        self.closed = code

    def abort(self) -> None:
        raise AssertionError("nobody is cut off")


class Member:
    """A session with its socket, and what it should have been sent."""

    def __init__(self, audience: Audience, turn: Turn) -> None:
        self.line = Line()
        outbox = Outbox()
        writer = Writer(outbox, self.line, turn)  # type: ignore[arg-type]  # it needs nothing else of a wire
        self.stop = writer.stop
        self.session = Session(LOCAL, outbox)
        audience.join(self.session)
        writer.follow(self.session, audience)
        self.expected: list[bytes] = []
        self.held: list[bytes] | None = None

    def expect(self, frame: bytes) -> None:
        (self.expected if self.held is None else self.held).append(frame)


def received(data: bytes) -> list[bytes]:
    """Frames of less than 126 bytes."""
    frames = []
    while data:
        length = 2 + data[1]
        frames.append(data[:length])
        data = data[length:]
    return frames


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["state", "progress", "final"]), st.sampled_from(JOBS)),
        st.tuples(
            st.sampled_from(["answer", "hold", "release", "congest", "relieve"]), st.integers(0, SOCKETS - 1)
        ),
        st.tuples(st.just("turn"), st.none()),
        st.tuples(st.just("status"), st.none()),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(operations=OPERATIONS)
def test_each_socket_is_sent_every_message_in_order_and_no_progress_that_is_untrue(
    operations: list[tuple[str, Any]],
) -> None:
    asyncio.run(_carry_out(operations))


async def _carry_out(operations: list[tuple[str, Any]]) -> None:
    turn = Turn(GatewayMetrics(CollectorRegistry()))
    audience = Audience(turn)
    members = [Member(audience, turn) for _ in range(SOCKETS)]
    latest: dict[str, bytes] = {}
    ended: set[str] = set()
    status = b""
    for number, (operation, subject) in enumerate(operations):
        frame = text_frame(b"%s %s %d" % (operation.encode(), str(subject).encode(), number))
        match operation:
            case "state" | "progress" | "final" if subject not in ended:
                audience.deliver(Event(LOCAL.owner, subject, Delivery[operation.upper()], frame, number))
                if operation == "progress":
                    latest[subject] = frame
                    continue
                if operation == "final":
                    ended.add(subject)
                    latest.pop(subject, None)
                for member in members:
                    member.expect(frame)
            case "status":
                status = frame
                audience.tell("status", lambda _, frame=frame: frame)
            case "turn":
                await asyncio.sleep(0)
            case "answer":
                _answer(members[subject], number)
            case "hold":
                if members[subject].held is None:
                    members[subject].session.hold("mine")
                    members[subject].held = []
            case "release":
                _release(members[subject], number)
            case "congest":
                members[subject].line.congested = True
            case "relieve":
                _relieve(members[subject])
    for number, member in enumerate(members):
        _release(member, number)
        _relieve(member)
    await asyncio.sleep(0)
    for member in members:
        sent = received(member.line.frames)
        told = [frame for frame in sent if frame[2:].startswith(b"status")]
        assert told[-1:] == ([status] if status else [])
        assert told == sorted(set(told), key=lambda frame: int(frame.split()[-1]))
        kept = (frame for frame in sent if not frame[2:].startswith((b"progress", b"status")))
        assert list(kept) == member.expected
        for job_id in JOBS:
            of_job = [frame for frame in sent if frame[2:].split(b" ")[:2][1:] == [job_id.encode()]]
            if job_id in latest:
                assert [frame for frame in of_job if frame[2:].startswith(b"progress")][-1] == latest[job_id]
            if job_id in ended:
                assert of_job[-1][2:].startswith(b"final")
        member.line.end()


def _answer(member: Member, number: int) -> None:
    message = Pong(id=number)
    member.session.answer(message)
    member.expected.append(text_frame(b'{"type":"pong","id":%d}' % number))


def _release(member: Member, number: int) -> None:
    """The answer that was waited for, and then what was kept back."""
    if member.held is not None:
        _answer(member, number)
        member.expected += member.held
        member.held = None
        member.session.release("mine")


def _relieve(member: Member) -> None:
    if member.line.congested:
        member.line.congested = False
        assert member.line.on_relief is not None
        member.line.on_relief()


async def test_each_viewer_is_told_what_is_for_him_and_who_steps_aside_takes_it_along() -> None:
    turn = Turn(GatewayMetrics(CollectorRegistry()))
    audience = Audience(turn)
    members = [Member(audience, turn) for _ in range(3)]
    await asyncio.sleep(0)  # now they stand together
    frames = {True: text_frame(b"for him"), False: text_frame(b"for others")}
    audience.tell("status", lambda viewer: frames[viewer.admin])
    members[0].session.answer(Pong())
    await asyncio.sleep(0)
    own = text_frame(b'{"type":"pong"}')
    assert [received(member.line.frames) for member in members] == [
        [frames[LOCAL.admin], own],
        [frames[LOCAL.admin]],
        [frames[LOCAL.admin]],
    ]
    await asyncio.sleep(0)
    members[1].session.identity = msgspec.structs.replace(LOCAL, admin=not LOCAL.admin)
    audience.tell("status", lambda viewer: frames[viewer.admin])
    await asyncio.sleep(0)
    assert [received(member.line.frames)[-1] for member in members] == [
        frames[LOCAL.admin],
        frames[not LOCAL.admin],
        frames[LOCAL.admin],
    ]
    for member in members:
        member.line.end()


async def test_sessions_that_take_more_than_their_bound_in_one_turn_miss_nothing() -> None:
    turn = Turn(GatewayMetrics(CollectorRegistry()))
    audience = Audience(turn)
    members = [Member(audience, turn) for _ in range(3)]
    frames = [text_frame(b"%d " % number + b"x" * (64 << 10)) for number in range(40)]
    for number, frame in enumerate(frames):
        audience.deliver(Event(LOCAL.owner, str(number), Delivery.STATE, frame, number))
    await asyncio.sleep(0)
    assert [member.line.frames == b"".join(frames) for member in members] == [True] * 3
    for member in members:
        member.line.end()


async def test_what_a_socket_does_not_take_at_once_of_a_turn_goes_to_its_transport() -> None:
    turn = Turn(GatewayMetrics(CollectorRegistry()))
    audience = Audience(turn)
    members = [Member(audience, turn) for _ in range(3)]
    await asyncio.sleep(0)  # now they stand together
    members[1].line.shut()
    frames = [text_frame(b"%d " % number + b"x" * (1 << 20)) for number in range(2)]
    for number, frame in enumerate(frames):
        audience.deliver(Event(LOCAL.owner, str(number), Delivery.STATE, frame, number))
    await asyncio.sleep(0)
    assert [member.line.frames == b"".join(frames) for member in members] == [True] * 3
    assert [member.line.left_over > 0 for member in members] == [True] * 3
    for member in members:
        member.line.end()


async def test_who_is_closed_in_a_turn_is_sent_what_the_turn_brought_before() -> None:
    turn = Turn(GatewayMetrics(CollectorRegistry()))
    audience = Audience(turn)
    member = Member(audience, turn)
    await asyncio.sleep(0)  # now it stands together with the others, of whom there are none
    before, after = text_frame(b"before"), text_frame(b"after")
    audience.deliver(Event(LOCAL.owner, "a", Delivery.STATE, before, 1))
    member.session.outbox.close(CLOSE_GOING_AWAY)
    audience.deliver(Event(LOCAL.owner, "a", Delivery.FINAL, after, 2))
    await asyncio.sleep(0)
    assert (member.line.frames, member.line.closed) == (before, CLOSE_GOING_AWAY)
    member.session.outbox.clear()
    audience.leave(member.session)
    member.stop()
    member.line.end()
