"""What a socket's reader gets: everything once and in order, however it waits."""

from __future__ import annotations

import asyncio

from reverie_gateway.mailbox import Mailbox


async def test_items_come_in_the_order_they_were_put() -> None:
    mailbox: Mailbox[int] = Mailbox()
    assert mailbox.empty()
    for number in range(3):
        mailbox.put_nowait(number)
    assert not mailbox.empty()
    assert [await mailbox.get() for _ in range(3)] == [0, 1, 2]
    assert mailbox.empty()


async def test_a_reader_that_waits_is_woken_and_what_came_meanwhile_follows() -> None:
    mailbox: Mailbox[str] = Mailbox()
    reading = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    mailbox.put_nowait("first")
    mailbox.put_nowait("second")
    assert await reading == "first"
    assert await mailbox.get() == "second"


async def test_a_cancelled_reader_loses_nothing_also_when_it_was_woken_already() -> None:
    mailbox: Mailbox[str] = Mailbox()
    for woken in (False, True):
        reading = asyncio.create_task(mailbox.get())
        await asyncio.sleep(0)
        if woken:
            mailbox.put_nowait("kept")
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert reading.cancelled()
    assert await mailbox.get() == "kept"
