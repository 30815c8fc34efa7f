"""What a service says of its readiness."""

from __future__ import annotations

import asyncio

from reverie_runtime.health import Health


async def test_a_check_that_is_added_while_others_run_does_not_break_the_answer() -> None:
    health = Health()
    running, added = asyncio.Event(), asyncio.Event()

    async def slow() -> str | None:
        running.set()
        await added.wait()
        return "the spring is broken"

    async def late() -> str | None:
        return None

    health.add("spring", slow)
    asked = asyncio.create_task(health.failures())
    await running.wait()
    health.add("model", late)
    added.set()
    assert await asked == {"spring": "the spring is broken"}
