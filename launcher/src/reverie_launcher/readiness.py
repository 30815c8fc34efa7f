"""Whether a child can work, asked over the network and never read from its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

ASK_TIMEOUT_S = 2.0
_MAX_ANSWER_BYTES = 256 * 1024


def http_ready(host: str, port: int) -> Callable[[], Awaitable[str | None]]:
    """A question to `/ready`: None when it answers 200, else one line why not."""

    async def ask() -> str | None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                status, body = await _get(host, port, "/ready")
        except ConnectionRefusedError:
            return "it does not listen yet"
        except TimeoutError:
            return f"its health answer takes longer than {ASK_TIMEOUT_S:.0f} s"
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return "it gave no proper health answer"
        return None if status == 200 else _reasons(body) or f"it answers {status}"

    return ask


def nats_ready(port: int, server_name: str) -> Callable[[], Awaitable[str | None]]:
    """A question to our own nats-server: None when it greets by `server_name` with JetStream on."""

    async def ask() -> str | None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                info = await nats_greeting("127.0.0.1", port)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return "it does not listen yet"
        if info.get("server_name") != server_name:
            return f"another NATS server listens on port {port}"
        return None if info.get("jetstream") else "JetStream is not on"

    return ask


async def nats_greeting(host: str, port: int) -> dict[str, Any]:
    """The INFO that a NATS server sends first; ValueError if what listens there is none."""
    reader, writer = await asyncio.open_connection(host, port, limit=_MAX_ANSWER_BYTES)
    try:
        line = await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if not line.startswith(b"INFO "):
        raise ValueError("no NATS greeting")
    info = json.loads(line[5:])
    if not isinstance(info, dict):
        raise ValueError("no NATS greeting")  # noqa: TRY004  # one error for everything that is no greeting
    return info


async def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(host, port, limit=_MAX_ANSWER_BYTES)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read(_MAX_ANSWER_BYTES)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return int(head.split(b" ", 2)[1]), body


def _reasons(body: bytes) -> str:
    """The reasons in the body of a 503, as one line; empty if there are none."""
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    reasons = answer.get("reasons") if isinstance(answer, dict) else None
    if isinstance(reasons, dict):
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    if isinstance(reasons, list):
        return "; ".join(str(reason) for reason in reasons)
    return str(reasons or "")
