"""A background task survives what its rounds meet."""

from __future__ import annotations

import asyncio

import structlog.testing

from reverie_runtime.actors import acting
from reverie_runtime.bus.port import BusUnavailable
from reverie_testing.clock import VirtualClock


async def test_a_round_that_fails_is_logged_and_the_next_ones_follow(virtual_clock: VirtualClock) -> None:
    outcomes = iter([ValueError("a defect"), BusUnavailable("away"), None, KeyError("another")])
    done = asyncio.Event()

    async def round_() -> None:
        outcome = next(outcomes, "end")
        if outcome == "end":
            done.set()
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome

    with structlog.testing.capture_logs() as lines:
        async with acting(round_, name="example", clock=virtual_clock) as task:
            async with asyncio.timeout(20):
                while not done.is_set():
                    await virtual_clock.advance(1.0)
            assert not task.done()
    assert task.cancelled()
    assert [(line["log_level"], line["actor"]) for line in lines] == [
        ("error", "example"),
        ("info", "example"),
        ("error", "example"),
    ]


async def test_leaving_cancels_the_round_that_is_under_way(virtual_clock: VirtualClock) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def round_() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with acting(round_, name="example", clock=virtual_clock):
        await begun.wait()
    assert left.is_set()
