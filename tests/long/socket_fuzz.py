"""Send random messages, made from the types of the protocol, to the WebSocket; each has to be answered.

    .venv/bin/python tests/long/socket_fuzz.py [--messages 100000] [--seed 1] [--sockets 4] [--url http://…]

Most messages are nearly right: a valid one of a random type, in which something was changed.  Without `--url` it
runs nats-server and a gateway of its own, and watches the gateway's memory.  Prints one JSON line; exit code 1 if a
socket was closed, a message went without an answer, something was an internal error, or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from msgspec import inspect
from websockets.asyncio.client import ClientConnection, connect

from reverie_protocol.job_submission import PARAMETERS
from reverie_protocol.jobs import JobType
from reverie_protocol.registry import CLIENT_MESSAGES
from reverie_protocol.validation import names_of, struct_fields
from reverie_testing.nats_server import NatsServer, free_port
from reverie_testing.service_process import ServiceProcess

#: What memory may grow by over the second half of a long run, in MiB.
GROWTH_MIB = 24
ANSWER_TIMEOUT_S = 60
BATCH = 40
#: Texts for fields with a pattern: whichever fits.
_FITTING = (
    "x",
    "job-1",
    "0" * 32,
    "fileRef:" + "0" * 32,
    "f" * 64 + ".png",
    "64x64",
    "512x768",
    "a:b.c_d-e",
    "health",
)
_TEXTS = (
    "",
    "x",
    "a red circle",
    "ü€😀",
    "\u0000",
    "\ud800",
    "null",
    "../../etc/passwd",
    "x" * 300,
    "%2e%2e",
    "'\"<&",
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320),
    *([], {}, [[]], [1, "x"], {"a": 1}, {"": None}, [None] * 50, {"type": "ping"}),
    *_TEXTS,
)
#: Frames that are no message at all.
_RUBBISH: tuple[str | bytes, ...] = (
    *(
        "",
        " ",
        "{",
        "]",
        "nul",
        "NaN",
        "ping",
        "[" * 5000,
        '{"type":' * 300,
        '{"id":1,"id":2}',
        "\u0000",
        '"\\ud800"',
    ),
    *(
        '{"type":"ping"}{"type":"ping"}',
        "\ufeff{}",
        "1e999",
        "9" * 5000,
        '{"type":"pong"}',
        "[]",
        "null",
        '"ping"',
    ),
    *(b"", b"\x00", b"\xff" * 100, b'{"type":"ping"}'),
)
#: Fields whose random values hardly ever make a job that is taken.
_SELDOM_RIGHT = {
    *("notBefore", "startBy", "finishBy", "strength", "mode", "scheduler", "style_lora", "styleLora"),
    *("initImage", "init_image", "maskImage", "mask_image"),
}
_ENVELOPE = struct_fields(CLIENT_MESSAGES["job:submit"])


class Grammar:
    """Messages from one source of randomness; `job_ids` and cursors up to `seq` are what a message may name."""

    def __init__(self, source: random.Random) -> None:
        self.job_ids: list[str] = []
        self.seq = 0
        self._random = source
        self._proper = False

    def frame(self, client_id: str) -> tuple[str | bytes, bool]:
        """A frame, and whether its answer has to carry this id."""
        choice = self._random.random()
        if choice < 0.06:
            return self._random.choice(_RUBBISH), False
        if choice < 0.061:
            return " " * (1 << 20) + "{}", False
        self._proper = self._random.random() < 0.4
        message = self._message() | {"id": client_id}
        for _ in range(0 if self._proper else self._random.choice((0, 1, 1, 2, 4))):
            if message:
                self._change(message)
        text = json.dumps(message, ensure_ascii=self._random.random() < 0.9)
        if "\ud800" in text:  # what is no text cannot even be sent
            text = json.dumps(message)
        if self._random.random() < 0.03:
            return text[: self._random.randrange(len(text))], False
        return text, message.get("id") == client_id

    def _message(self) -> dict[str, Any]:
        type_ = self._random.choice(list(CLIENT_MESSAGES))
        if type_ == "job:submit":
            return self._submit()
        return {"type": type_} | self._fields(struct_fields(CLIENT_MESSAGES[type_]))

    def _submit(self) -> dict[str, Any]:
        job_type = self._random.choice((JobType.GENERATE, JobType.GENERATE, *PARAMETERS))
        parameters = self._fields(struct_fields(PARAMETERS[job_type]))
        envelope = {name: field for name, field in _ENVELOPE.items() if name != "params"}
        message = {"type": "job:submit", "jobType": job_type.value} | self._fields(envelope)
        where = self._random.random()
        if where < 0.5:
            return message | parameters
        if where < 0.9:
            return message | {"params": parameters}
        return message | parameters | {"params": parameters}

    def _fields(self, fields: Mapping[str, inspect.Field]) -> dict[str, Any]:
        given = {
            self._random.choice(names_of(field)): self._value(field.type)
            for field in fields.values()
            if field.required or self._random.random() < 0.3
        }
        if self._proper and self._random.random() < 0.8:
            given = {name: value for name, value in given.items() if name not in _SELDOM_RIGHT}
        if "cursor" in given and self._random.random() < 0.995:  # one from the future is waited for
            given["cursor"] = self._random.randint(0, self.seq)
        return given

    def _change(self, message: dict[str, Any]) -> None:
        """Make one thing of a message wrong, or at least different."""
        name = self._random.choice(list(message))
        match self._random.randrange(5):
            case 0:
                message.pop(name, None)
            case 1:
                message[name] = self._random.choice(_ODD)
            case 2:
                message[self._random.choice((*_TEXTS[1:4], "owner", "__proto__", "params", "prompt"))] = 1
            case 3 if isinstance(message[name], dict) and message[name]:
                self._change(message[name])
            case _:
                message[name] = [message[name]] if self._random.random() < 0.3 else str(message[name])

    def _value(self, info: inspect.Type) -> Any:  # a value of any type that the protocol has
        pick = self._random
        match info:
            case inspect.Metadata(type=inner, extra=extra):
                return "64x64" if (extra or {}).get("check") else self._value(inner)
            case inspect.UnionType(types):
                return self._value(pick.choice(types))
            case inspect.BoolType():
                return pick.random() < 0.5
            case inspect.IntType(ge=least, le=most):
                return self._number(least, most)
            case inspect.FloatType(ge=least, le=most):
                whole = self._number(least, most)
                return whole if pick.random() < 0.3 else whole * pick.random()
            case inspect.StrType(pattern=str(pattern)):
                fitting = [text for text in (*self.job_ids[-8:], *_FITTING) if re.search(pattern, text)]
                return pick.choice(fitting or _FITTING)
            case inspect.StrType():
                return pick.choice(_TEXTS[1:4] if self._proper else _TEXTS)
            case inspect.EnumType(cls=cls):
                return pick.choice(list(cls)).value
            case inspect.LiteralType(values=values):
                return pick.choice(values)
            case inspect.StructType(fields=fields):
                return self._fields({field.encode_name: field for field in fields})
            case inspect.DictType():
                return {pick.choice(_TEXTS[:4]): pick.choice(_ODD) for _ in range(pick.randrange(3))}
            case _:
                return pick.choice(_ODD)

    def _number(self, least: float | None, most: float | None) -> int:
        low, high = int(least or 0), int(2**40 if most is None else most)
        if self._proper:
            return self._random.randint(low + (least == 0), high)
        return self._random.choice((low, high, low - 1, high + 1, *(self._random.randint(low, high),) * 4))


class Talk:
    """One socket that is talked to, and what it answered."""

    def __init__(self, connection: ClientConnection, source: random.Random, name: str) -> None:
        self.codes: Counter[str] = Counter()
        self.unanswered: list[str] = []
        self.sent = 0
        self._connection = connection
        self._grammar = Grammar(source)
        self._name = name
        self._answered: set[object] = set()
        self._pongs: set[object] = set()
        self._heard = asyncio.Event()

    async def run(self, messages: int) -> None:
        """Send that many messages, and hear an answer to each."""
        listening = asyncio.create_task(self._listen())
        try:
            while self.sent < messages:
                await self._batch(min(BATCH, messages - self.sent))
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _batch(self, size: int) -> None:
        expected: dict[str, str | bytes] = {}
        for _ in range(size):
            client_id = f"{self._name}-{self.sent}"
            frame, echoed = self._grammar.frame(client_id)
            if echoed:
                expected[client_id] = frame
            self.sent += 1
            await self._connection.send(frame)
        # Nobody works on the jobs that came of it.
        for job_id in self._grammar.job_ids:
            await self._connection.send(json.dumps({"type": "job:cancel", "jobId": job_id}))
        self._grammar.job_ids.clear()
        mark = f"{self._name}-mark-{self.sent}"
        await self._connection.send(json.dumps({"type": "ping", "id": mark}))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while mark not in self._pongs:
                await self._heard.wait()
                self._heard.clear()
        self.unanswered += [str(frame)[:300] for key, frame in expected.items() if key not in self._answered]
        self._answered.clear()
        self._pongs.clear()

    async def _listen(self) -> None:
        async for frame in self._connection:
            if isinstance(frame, bytes):
                continue
            message = json.loads(frame)
            kind = message["type"]
            self.codes[message["code"] if kind == "error" else kind] += 1
            self._answered.add(message.get("id"))
            self._grammar.seq = max(self._grammar.seq, message.get("seq", 0))
            if kind == "job:ack":
                self._grammar.job_ids.append(message["jobId"])
            if kind == "pong":
                self._pongs.add(message.get("id"))
                self._heard.set()


@contextmanager
def own_gateway() -> Iterator[tuple[str, psutil.Process]]:
    """A gateway that forgets jobs quickly, with a nats-server of its own; its address and process."""
    with tempfile.TemporaryDirectory(prefix="reverie-fuzz-") as folder:
        server = NatsServer(Path(folder))
        server.start()
        port = free_port()
        settings = {
            "REVERIE_NATS__URL": server.url,
            "REVERIE_STORAGE__PATH": str(Path(folder) / "storage"),
            "REVERIE_GATEWAY__PORT": str(port),
            "REVERIE_GATEWAY__RETENTION_H": "0.002",
            "REVERIE_LOG__LEVEL": "error",
        }
        url = f"http://127.0.0.1:{port}"
        gateway = ServiceProcess("reverie_gateway", settings, url=url, log=Path(folder) / "gateway.log")
        try:
            with gateway:
                gateway.wait_ready()
                yield url, psutil.Process(gateway.pid)
        finally:
            server.stop()


async def talk(url: str, messages: int, sockets: int, seed: int) -> list[Talk]:
    """Talk to a gateway on some sockets at once; raises if one of them is closed."""
    address = url.replace("http", "ws", 1) + "/v1/ws"
    talks = []

    async def one(number: int) -> None:
        async with connect(address, proxy=None, max_size=None) as connection:
            talks.append(Talk(connection, random.Random(seed * 1000 + number), f"s{number}"))
            await talks[-1].run(messages // sockets)

    await asyncio.gather(*(one(number) for number in range(sockets)))
    return talks


def report(talks: list[Talk], seconds: float, memory_mib: list[float]) -> bool:
    """Print what was seen; whether all is well."""
    codes = sum((spoken.codes for spoken in talks), Counter[str]())
    unanswered = [frame for spoken in talks for frame in spoken.unanswered]
    growth = memory_mib[-1] - memory_mib[len(memory_mib) // 2] if memory_mib else 0.0
    row = {
        "figure": "random messages",
        "messages": sum(spoken.sent for spoken in talks),
        "seconds": round(seconds, 1),
        "answers": dict(codes.most_common()),
        "internal": codes["internal"],
        "unanswered": len(unanswered),
        "memory_mib": [round(value, 1) for value in memory_mib],
    }
    print(json.dumps(row))
    for frame in unanswered[:10]:
        print("unanswered:", frame, file=sys.stderr)
    return not unanswered and not codes["internal"] and growth < GROWTH_MIB


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--sockets", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a gateway that runs already")
    options = parser.parse_args()
    began = time.monotonic()
    if options.url:
        talks = asyncio.run(talk(options.url, options.messages, options.sockets, options.seed))
        return 0 if report(talks, time.monotonic() - began, []) else 1
    rounds = 8
    with own_gateway() as (url, process):
        talks, memory = [], []
        for number in range(rounds):
            part = talk(url, options.messages // rounds, options.sockets, options.seed * 100 + number)
            talks += asyncio.run(part)
            memory.append(process.memory_info().rss / (1 << 20))
        return 0 if report(talks, time.monotonic() - began, memory) else 1


if __name__ == "__main__":
    sys.exit(main())
