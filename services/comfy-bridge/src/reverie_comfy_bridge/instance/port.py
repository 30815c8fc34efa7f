"""Noticing at once that a server which was down listens again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from reverie_runtime.clock import Clock

#: Longest time between two looks at the port, and for one to connect, in seconds.
PROBE_S: Final = 0.5
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


async def until_it_opens(url: str, longest_s: float, *, clock: Clock, random: Callable[[], float]) -> None:
    """Wait for `longest_s`, or until a port that was closed is open; one that is open already ends no wait."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])
    over_at = clock.monotonic() + longest_s
    was_closed = False
    while (left_s := over_at - clock.monotonic()) > 0:
        if await _is_open(*address):
            if was_closed:
                return
            await clock.sleep(left_s)
            return
        was_closed = True
        await clock.sleep(min(left_s, PROBE_S * (0.5 + random() / 2)))


async def _is_open(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True
    return False
