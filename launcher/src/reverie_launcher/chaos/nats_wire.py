"""The NATS protocol, spoken plainly: what any other service could do, and nothing of what Reverie's own bus does.

The oracle reads the truth through this, so that a fault of our own client cannot hide from it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from reverie_launcher.chaos.evidence import Revision
from reverie_protocol.jobs import Job

JOBS_STREAM: Final = "KV_jobs"
CONNECT_TIMEOUT_S: Final = 2.0
REQUEST_TIMEOUT_S: Final = 10.0
#: Requests in flight while the history is read.
WINDOW: Final = 64
NOT_FOUND: Final = 404
MAX_LINE_BYTES: Final = 1 << 20


class WireLost(Exception):
    """The connection is over, or the server did not answer in time."""


class WireMessage(msgspec.Struct, frozen=True):
    """One message; `headers` by their names as sent."""

    subject: str
    data: bytes
    headers: dict[str, str]


class NatsWire:
    """One connection.  `open` makes it, `close` ends it; when it is lost, `lost` is done."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._handlers: dict[str, Callable[[WireMessage], None]] = {}
        self._pongs: list[asyncio.Future[None]] = []
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(), name="nats wire")

    @classmethod
    async def open(cls, port: int) -> NatsWire:
        """Connect on loopback and greet; WireLost if nobody answers properly."""
        writer = wire = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MAX_LINE_BYTES)
                await reader.readline()  # INFO
                wire = cls(reader, writer)
                options = b'{"verbose":false,"headers":true,"no_responders":true,"name":"reverie chaos"}'
                writer.write(b"CONNECT " + options + b"\r\n")
                await wire.flush()
                return wire
        except (OSError, TimeoutError, ValueError, WireLost) as error:
            if wire is not None:
                await wire.close()
            elif writer is not None:
                writer.close()
            raise WireLost(str(error)) from None

    def subscribe(self, subject: str, handler: Callable[[WireMessage], None]) -> None:
        """Call `handler` for each message; `flush` makes sure that the server knows."""
        number = str(next(self._numbers))
        self._handlers[number] = handler
        self._writer.write(f"SUB {subject} {number}\r\n".encode())

    async def flush(self) -> None:
        """Return when the server has handled everything sent before."""
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._writer.write(b"PING\r\n")
        await self._answer(pong)

    async def request(self, subject: str, data: bytes) -> bytes:
        """One answer; WireLost if there is none."""
        return (await self._request(subject, data)).data

    async def answered(self, subject: str) -> bool:
        """Whether anybody answers on this subject; False if the server says that nobody listens."""
        return "Status" not in (await self._request(subject, b"")).headers

    async def _request(self, subject: str, data: bytes) -> WireMessage:
        answer: asyncio.Future[WireMessage] = asyncio.get_running_loop().create_future()
        inbox, number = f"_INBOX.chaos.{id(self)}.{next(self._numbers)}", str(next(self._numbers))

        def answered(message: WireMessage) -> None:
            if not answer.done():
                answer.set_result(message)

        self._handlers[number] = answered
        head = f"SUB {inbox} {number}\r\nUNSUB {number} 1\r\nPUB {subject} {inbox} {len(data)}\r\n"
        self._writer.write(head.encode() + data + b"\r\n")
        try:
            await self._answer(answer)
            return answer.result()
        finally:
            self._handlers.pop(number, None)

    async def close(self) -> None:
        """End it; idempotent."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _answer(self, answer: asyncio.Future[Any]) -> None:
        waiting = {answer, self.lost}
        done, _ = await asyncio.wait(waiting, timeout=REQUEST_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if answer not in done:
            raise WireLost("nats-server does not answer")

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                await self._take(line)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            if not self.lost.done():
                self.lost.set_result(None)

    async def _take(self, line: bytes) -> None:
        verb, *fields = line.decode().split()
        match verb.upper():
            case "PING":
                self._writer.write(b"PONG\r\n")
            case "PONG":
                pong = self._pongs.pop(0)
                if not pong.done():
                    pong.set_result(None)
            case "MSG":
                data = (await self._reader.readexactly(int(fields[-1]) + 2))[:-2]
                self._deliver(fields, WireMessage(fields[0], data, {}))
            case "HMSG":
                head_bytes = int(fields[-2])
                data = (await self._reader.readexactly(int(fields[-1]) + 2))[:-2]
                headers = _headers(data[:head_bytes])
                self._deliver(fields, WireMessage(fields[0], data[head_bytes:], headers))

    def _deliver(self, fields: list[str], message: WireMessage) -> None:
        handler = self._handlers.get(fields[1])
        if handler is not None:
            handler(message)


def _headers(head: bytes) -> dict[str, str]:
    first, *lines = head.decode().split("\r\n")
    status = first.split()[1:2]
    return {
        **({"Status": status[0]} if status else {}),
        **{
            name.strip(): value.strip()
            for name, found, value in (line.partition(":") for line in lines)
            if found
        },
    }


class _Found(msgspec.Struct):
    subject: str
    seq: int
    time: str
    data: str = ""
    hdrs: str = ""


class _Failed(msgspec.Struct):
    code: int


class _Answer(msgspec.Struct):
    message: _Found | None = None
    error: _Failed | None = None


class _Span(msgspec.Struct):
    first_seq: int
    last_seq: int


class _Info(msgspec.Struct):
    state: _Span


async def last_sequence(wire: NatsWire) -> int:
    """The latest revision of the bucket `jobs`."""
    return (await _span(wire)).last_seq


async def read_revisions(wire: NatsWire, *, after: int = 0) -> AsyncIterator[tuple[int, list[Revision]]]:
    """What the server kept after a revision, in windows: how far each reaches, and what is in it.

    WireLost if the server stops answering.
    """
    span = await _span(wire)
    for start in range(max(span.first_seq, after + 1), span.last_seq + 1, WINDOW):
        window = range(start, min(start + WINDOW, span.last_seq + 1))
        found = await asyncio.gather(*(_message(wire, seq) for seq in window))
        yield window[-1], [_revision(each) for each in found if each is not None and not _is_deletion(each)]


def _revision(found: _Found) -> Revision:
    at = msgspec.convert(found.time, type=datetime).timestamp()
    return Revision(found.seq, at, msgspec.json.decode(base64.b64decode(found.data), type=Job))


def _is_deletion(found: _Found) -> bool:
    headers = base64.b64decode(found.hdrs)
    return b"\r\nKV-Operation:" in headers or b"\r\nNats-Marker-Reason:" in headers


async def _span(wire: NatsWire) -> _Span:
    answer = await wire.request(f"$JS.API.STREAM.INFO.{JOBS_STREAM}", b"")
    return msgspec.json.decode(answer, type=_Info).state


async def _message(wire: NatsWire, seq: int) -> _Found | None:
    query = msgspec.json.encode({"seq": seq})
    answer = msgspec.json.decode(
        await wire.request(f"$JS.API.STREAM.MSG.GET.{JOBS_STREAM}", query), type=_Answer
    )
    if answer.error is not None and answer.error.code != NOT_FOUND:
        raise WireLost(f"revision {seq} cannot be read")
    return answer.message
