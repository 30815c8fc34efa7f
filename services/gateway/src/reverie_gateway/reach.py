"""The bus as a request meets it: absent or silent it is `service_unavailable`; what was written shows up soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from reverie_jobs.mirror import Mirror
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_runtime.bus.port import Bus, BusError

#: Longest wait for the bus before a client is told to try again, in seconds.
BUS_TIMEOUT_S = 2.0
UNAVAILABLE_RETRY_S = 1.0
#: Longest wait for our own write to come back; an answer does not depend on it.
SHOWN_S = 1.0

Record = TypeVar("Record", bound=msgspec.Struct)


@asynccontextmanager
async def reachable(bus: Bus) -> AsyncIterator[None]:
    """Turns an absent or silent bus into `service_unavailable`."""
    try:
        if not bus.connected:
            raise _unavailable()
        async with asyncio.timeout(BUS_TIMEOUT_S):
            yield
    except (BusError, TimeoutError):
        raise _unavailable() from None


async def shown(mirror: Mirror[Record], condition: Callable[[], bool]) -> bool:
    """Wait until a mirror shows what was written; False if that takes longer than `SHOWN_S`."""
    there = asyncio.Event()
    stop = mirror.listen(lambda _: there.set() if condition() else None)
    try:
        if condition():
            return True
        async with asyncio.timeout(SHOWN_S):
            await there.wait()
    except TimeoutError:
        return False
    finally:
        stop()
    return True


def _unavailable() -> ReverieError:
    return ReverieError(
        ErrorCode.SERVICE_UNAVAILABLE,
        "the job store cannot be reached at the moment; try again",
        retry_after=UNAVAILABLE_RETRY_S,
    )
