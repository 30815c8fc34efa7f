"""Work that goes on in the background for as long as its owner lives, whatever a round of it meets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog

from reverie_runtime.bus.port import BusError
from reverie_runtime.clock import Clock

#: Pause after a round that failed, in seconds, so that a lasting fault does not keep a core busy.
FAULT_PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def acting(
    round_: Callable[[], Awaitable[None]], *, name: str, clock: Clock
) -> AsyncIterator[asyncio.Task[None]]:
    """Call `round_` again and again during the block; it waits for its next occasion by itself.

    A round that fails is logged and the next one follows after `FAULT_PAUSE_S`: nobody awaits such a task, so an
    exception would end it silently.  Leaving the block cancels the round that is under way.
    """

    async def act() -> None:
        while True:
            try:
                await round_()
            except BusError as error:
                log.info("waits for the bus", actor=name, reason=str(error))
            except Exception:
                log.exception("a round failed; it goes on", actor=name)
            else:
                continue
            await clock.sleep(FAULT_PAUSE_S)

    task = asyncio.create_task(act(), name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
