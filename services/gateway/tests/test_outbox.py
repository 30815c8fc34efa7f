"""The outbox of one socket: order, conflation, bounds."""

from __future__ import annotations

import asyncio

from reverie_gateway.outbox import MAX_PREVIEWS, Outbox
from reverie_protocol.errors import CLOSE_GOING_AWAY, CLOSE_SLOW_CLIENT


async def take(outbox: Outbox, count: int) -> list[object]:
    return [await outbox.next() for _ in range(count)]


async def test_messages_go_out_in_their_order() -> None:
    outbox = Outbox()
    for text in "abc":
        outbox.put(text)
    assert await take(outbox, 3) == ["a", "b", "c"]


async def test_the_latest_of_a_key_replaces_an_unsent_one_and_goes_behind_what_waits() -> None:
    outbox = Outbox()
    outbox.put_latest("job", "10 %")
    outbox.put("state")
    outbox.put_latest("job", "20 %")
    outbox.put_latest("other", "5 %")
    assert await take(outbox, 3) == ["state", "20 %", "5 %"]
    outbox.put_latest("job", "30 %")
    assert await outbox.next() == "30 %"


async def test_what_has_become_untrue_can_be_dropped() -> None:
    outbox = Outbox()
    outbox.put_latest("job", "90 %")
    outbox.put_preview("job", b"picture")
    outbox.drop_latest("job")
    outbox.drop_preview("job")
    outbox.drop_latest("unknown")
    outbox.put("complete")
    assert await outbox.next() == "complete"
    outbox.put("next")
    assert await outbox.next() == "next"


async def test_pictures_wait_until_nothing_else_does() -> None:
    outbox = Outbox()
    outbox.put_preview("a", b"1")
    outbox.put_preview("b", b"2")
    outbox.put_preview("a", b"3")
    outbox.put("message")
    assert await take(outbox, 3) == ["message", b"2", b"3"]


async def test_pictures_and_latest_frames_are_bounded_by_dropping_the_oldest() -> None:
    outbox = Outbox()
    for number in range(MAX_PREVIEWS + 1):
        outbox.put_preview(str(number), b"%d" % number)
    assert await outbox.next() == b"1"


async def test_too_many_messages_end_in_the_slow_client_code_and_nothing_more() -> None:
    for outbox in (Outbox(max_messages=3), Outbox(max_bytes=3)):
        for _ in range(4):
            outbox.put("x")
        outbox.put("late")
        outbox.put_latest("job", "late")
        outbox.put_preview("job", b"late")
        assert await take(outbox, 2) == [CLOSE_SLOW_CLIENT, CLOSE_SLOW_CLIENT]
        await outbox.until_closing()


async def test_what_was_sent_no_longer_counts() -> None:
    outbox = Outbox(max_messages=2, max_bytes=4)
    for _ in range(10):
        outbox.put("ab")
        outbox.put("cd")
        assert await take(outbox, 2) == ["ab", "cd"]
    assert outbox.closing is None


async def test_progress_alone_never_closes_a_client() -> None:
    outbox = Outbox(max_messages=1, max_bytes=1)
    for number in range(1000):
        outbox.put_latest("job", f"{number}")
    assert await outbox.next() == "999"


async def test_an_orderly_close_comes_after_what_waits() -> None:
    outbox = Outbox()
    outbox.put("last words")
    outbox.close(CLOSE_GOING_AWAY)
    outbox.put("too late")
    assert await take(outbox, 2) == ["last words", CLOSE_GOING_AWAY]


async def test_a_reader_wakes_when_something_comes() -> None:
    outbox = Outbox()
    reading = asyncio.create_task(outbox.next())
    await asyncio.sleep(0)
    outbox.put("news")
    assert await reading == "news"
