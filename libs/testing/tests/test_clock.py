"""Virtual time passes in order, and only when told."""

import asyncio

from reverie_testing.clock import VirtualClock


async def test_sleepers_wake_in_the_order_of_their_moments(virtual_clock: VirtualClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await virtual_clock.sleep(seconds)
        woken.append((name, virtual_clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        for name, seconds in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
            tasks.create_task(sleep(name, seconds))
        await virtual_clock.advance(2.5)
        assert woken == [("a", 1.0), ("b", 2.0)]
        await virtual_clock.advance(0.5)
    assert woken[-1] == ("c", 3.0)


async def test_one_who_sleeps_again_wakes_again_within_the_same_advance(virtual_clock: VirtualClock) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await virtual_clock.sleep(1)
            ticks += 1

    task = asyncio.create_task(tick())
    await virtual_clock.advance(10)
    task.cancel()
    assert ticks == 10


async def test_a_cancelled_sleeper_is_forgotten(virtual_clock: VirtualClock) -> None:
    task = asyncio.create_task(virtual_clock.sleep(1))
    await virtual_clock.settle()
    task.cancel()
    await virtual_clock.advance(2)
    assert virtual_clock.monotonic() == 2
