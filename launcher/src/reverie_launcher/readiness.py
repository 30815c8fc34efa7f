"""Whether a child can work, asked over the network and never read from its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

ASK_TIMEOUT_S = 2.0
MAX_GREETING_BYTES = 64 * 1024


def http_ready(host: str, port: int) -> Callable[[], Awaitable[str | None]]:
    """A question to `/ready`: None when it answers 200, else one line why not."""

    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{port}/ready"

    async def ask() -> str | None:
        try:
            # No proxy and no certificates: it is a port of this machine.
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=ASK_TIMEOUT_S) as http:
                answer = await http.get(url)
        except httpx.ConnectError:
            return "it does not listen yet"
        except httpx.TimeoutException:
            return f"its health answer takes longer than {ASK_TIMEOUT_S:.0f} s"
        except httpx.HTTPError:
            return "it gave no proper health answer"
        if answer.status_code == 200:
            return None
        return why_not_ready(_decoded(answer.content)) or f"it answers {answer.status_code}"

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
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_GREETING_BYTES)
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


def why_not_ready(answer: object) -> str:
    """The reasons in the decoded body of a 503, as one line; empty if there are none."""
    reasons = answer.get("reasons") if isinstance(answer, dict) else None
    if isinstance(reasons, dict):
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return ""


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
