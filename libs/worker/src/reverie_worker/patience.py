"""Waiting for an event, but not for ever, on an injected clock."""

from __future__ import annotations

import asyncio

from reverie_runtime.clock import Clock


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
