"""A WebSocket client that costs little: a thousand of them fit into one process beside what they measure."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from websockets.frames import Opcode

from reverie_launcher.chaos.evidence import Connection, Joined, Resumed, Transition
from reverie_protocol.jobs import JobState

CONNECT_S: Final = 5.0
RETRY_S: Final = (0.005, 0.05)
LOST: Final = (OSError, EOFError, TimeoutError)
_HANDSHAKE: Final = (
    "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_FIN, _MASKED, _TWO_BYTES, _EIGHT_BYTES = 0x80, 0x80, 126, 127


class Listener:
    """One client: says `hello` once, then `resume` each time it comes back.

    `log` is what the oracle of `reverie chaos` judges; `caught_up` is set while nothing that happened before the
    present connection is missing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.log: list[Connection] = []
        self.states: dict[str, tuple[int, JobState]] = {}
        self.caught_up = asyncio.Event()
        self.caught_up_at = 0.0
        self.reconnects = -1
        self._cursor: int | None = None
        self._epoch = ""
        self._goal: int | None = None
        self._doomed = False
        self._writer: asyncio.StreamWriter | None = None

    async def stay(self, urls: Sequence[str], rng: random.Random) -> None:
        """Be connected to one of these, again and again, until cancelled."""
        while True:
            with contextlib.suppress(*LOST):
                await self.converse(rng.choice(urls))
            await asyncio.sleep(rng.uniform(*RETRY_S))

    async def converse(self, url: str) -> None:
        """One connection, until it breaks; LOST."""
        host = url.removeprefix("http://")
        name, _, port = host.partition(":")
        self._goal, self._doomed = None, False
        async with asyncio.timeout(CONNECT_S):
            reader, self._writer = await asyncio.open_connection(name, int(port), limit=1 << 20)
        try:
            self._writer.write(_HANDSHAKE.format(host=host).encode())
            async with asyncio.timeout(CONNECT_S):
                answer = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in answer.partition(b"\r\n")[0]:
                raise ConnectionError(answer.partition(b"\r\n")[0].decode())
            self.reconnects += 1
            connection = Connection(self.name, f"{url} connection {len(self.log) + 1}")
            self.log.append(connection)
            self._send(Opcode.TEXT, msgspec.json.encode(self._greeting()))
            while True:
                self._hear(connection, *await _read_frame(reader))
        finally:
            self.cut()

    def expect_loss(self) -> None:
        """What still comes in on the present connection counts as heard, but does not make it caught up."""
        self._doomed = True
        self.caught_up.clear()

    def cut(self) -> None:
        """Break the connection, as a network would."""
        self.expect_loss()
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    def _greeting(self) -> dict[str, Any]:
        if self._cursor is None:
            return {"type": "hello"}
        return {"type": "resume", "cursor": self._cursor, "epoch": self._epoch}

    def _hear(self, connection: Connection, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:
            self._send(Opcode.PONG, payload)
        elif opcode == Opcode.CLOSE:
            raise EOFError
        elif opcode == Opcode.TEXT:
            self._learn(connection, msgspec.json.decode(payload))

    def _learn(self, connection: Connection, message: dict[str, Any]) -> None:
        match message["type"]:
            case "hello:ok":
                connection.entries.append(Joined(message["seq"]))
                self._begin(message["seq"], message["seq"], message["epoch"])
            case "resumed":
                connection.entries.append(Resumed(message["recovered"], message["from"], message["seq"]))
                start = message["from"] if message["recovered"] else message["seq"]
                self._begin(start, message["seq"], message["epoch"])
            case "job:state" | "job:complete" | "job:error":
                completed = message["type"] == "job:complete"
                state = JobState.COMPLETED if completed else JobState(message["state"])
                told = Transition(message["jobId"], state, message["seq"], message["jobSeq"])
                connection.entries.append(told)
                self.states[told.job_id] = (told.seq, state)
                if self._goal is not None and self._cursor is not None:
                    self._cursor = max(self._cursor, told.seq)
        self._judge()

    def _begin(self, cursor: int, goal: int, epoch: str) -> None:
        self._cursor, self._goal, self._epoch = cursor, goal, epoch

    def _judge(self) -> None:
        """The log is one owner's and every revision is told, so it is whole once it reaches its goal."""
        if self._goal is None or self._doomed or self.caught_up.is_set():
            return
        if (self._cursor or 0) >= self._goal:
            self.caught_up_at = time.monotonic()
            self.caught_up.set()

    def _send(self, opcode: Opcode, payload: bytes) -> None:
        if self._writer is None:
            return
        size = len(payload)
        length = bytes([_MASKED | size]) if size < _TWO_BYTES else bytes([_MASKED | 126]) + size.to_bytes(2)
        # A mask of zeros leaves the payload as it is.
        self._writer.write(bytes([_FIN | opcode]) + length + bytes(4) + payload)


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    if size in (_TWO_BYTES, _EIGHT_BYTES):
        size = int.from_bytes(await reader.readexactly(2 if size == _TWO_BYTES else 8))
    return first & 0x0F, await reader.readexactly(size)
