"""Tells the bus how jobs go: progress at a bounded rate and at least once a second, previews beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from reverie_protocol.subjects import job_preview, job_progress
from reverie_runtime.bus.port import Bus, BusError
from reverie_runtime.clock import Clock
from reverie_worker.assignment import Assignment
from reverie_worker.patience import wait_up_to

#: Least time between two progress messages of one job, and the longest, in seconds.
MIN_INTERVAL_S: Final = 0.05
REPEAT_S: Final = 0.9

_encoder = msgspec.json.Encoder()


@contextlib.asynccontextmanager
async def telling(
    assignment: Assignment, bus: Bus, clock: Clock, *, interval_s: float = MIN_INTERVAL_S
) -> AsyncIterator[None]:
    """Publish an assignment's progress and previews during the block, the latest only."""
    task = asyncio.create_task(_tell(assignment, bus, clock, interval_s), name=f"tell {assignment.run_id}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def tell(assignment: Assignment, bus: Bus) -> None:
    """Publish the latest progress, and the preview that waits, now."""
    assignment.changed.clear()
    # At most once, like every core message: while the bus is away nobody is told.
    with contextlib.suppress(BusError):
        await bus.publish(job_progress(assignment.job.id), _encoder.encode(assignment.progress.latest))
        frame, assignment.preview_frame = assignment.preview_frame, None
        if frame is not None:
            await bus.publish(job_preview(assignment.job.id), frame)


async def _tell(assignment: Assignment, bus: Bus, clock: Clock, interval_s: float) -> None:
    while True:
        await wait_up_to(assignment.changed, REPEAT_S, clock)
        await tell(assignment, bus)
        await clock.sleep(interval_s)
