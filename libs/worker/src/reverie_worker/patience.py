"""Waiting for an event or for the store, but not for ever, on an injected clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from reverie_runtime.clock import Clock
from reverie_storage.port import StorageUnavailable

RETRY_S: Final = 0.25
#: How long a full or missing disk, or a store that does not answer, is waited for before a job fails, in seconds.
STORAGE_PATIENCE_S: Final = 15.0

T = TypeVar("T")


async def wait_up_to(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Wait until the event is set or `seconds` have passed; whether it is set."""
    if event.is_set():
        return True
    waiter = asyncio.ensure_future(event.wait())
    patience = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((waiter, patience), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        patience.cancel()
    return event.is_set()


async def with_patience(work: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """What the store answers, asked again while it is away; StorageUnavailable once it has been for too long."""
    give_up_at = clock.monotonic() + STORAGE_PATIENCE_S
    while True:
        try:
            return await work()
        except StorageUnavailable:
            if clock.monotonic() >= give_up_at:
                raise
            await clock.sleep(RETRY_S)
