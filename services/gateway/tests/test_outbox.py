"""The outbox of one client: order, conflation, bounds."""

from __future__ import annotations

from reverie_gateway.outbox import CHUNK_BYTES, MAX_LATEST_BYTES, MAX_PREVIEW_BYTES, SLOT_BYTES, Outbox
from reverie_protocol.errors import CLOSE_GOING_AWAY, CLOSE_SLOW_CLIENT


def taken(outbox: Outbox) -> list[bytes]:
    """Everything that would go out by now."""
    frames: list[bytes] = []
    while some := outbox.take():
        frames += some
    while (preview := outbox.take_preview()) is not None:
        frames.append(preview)
    return frames


def test_messages_go_out_in_order() -> None:
    outbox = Outbox()
    for text in (b"a", b"b", b"c"):
        outbox.put(text)
    assert outbox.take() == [b"a", b"b", b"c"]
    assert outbox.take() == []


def test_the_latest_of_a_key_replaces_an_unsent_one_and_goes_behind_what_waits() -> None:
    outbox = Outbox()
    outbox.put_latest("job", b"10 %")
    outbox.put(b"state")
    outbox.put_latest("job", b"20 %")
    outbox.put_latest("other", b"5 %")
    assert outbox.take() == [b"state", b"20 %", b"5 %"]
    outbox.put_latest("job", b"30 %")
    assert outbox.take() == [b"30 %"]


def test_what_became_untrue_is_not_sent() -> None:
    outbox = Outbox()
    outbox.put_latest("job", b"90 %")
    outbox.put_preview("job", b"picture")
    outbox.drop_latest("job")
    outbox.drop_preview("job")
    outbox.drop_latest("unknown")
    outbox.put(b"complete")
    assert taken(outbox) == [b"complete"]


def test_previews_go_out_only_when_nothing_else_waits_and_only_the_newest_of_a_job() -> None:
    outbox = Outbox()
    outbox.put_preview("a", b"1")
    outbox.put_preview("b", b"2")
    outbox.put_preview("a", b"3")
    outbox.put(b"message")
    assert outbox.take_preview() is None
    assert taken(outbox) == [b"message", b"2", b"3"]


def test_too_large_previews_push_the_oldest_out_but_never_the_newest() -> None:
    outbox = Outbox()
    picture = bytes(MAX_PREVIEW_BYTES // 2)
    for job_id in ("a", "b", "c"):
        outbox.put_preview(job_id, job_id.encode() + picture[1:])
    assert [frame[:1] for frame in taken(outbox)] == [b"b", b"c"]
    outbox.put_preview("d", bytes(2 * MAX_PREVIEW_BYTES))
    assert len(taken(outbox)) == 1


def test_a_client_that_takes_nothing_is_cut_off_with_a_code_that_invites_it_back() -> None:
    outbox = Outbox(max_bytes=3 * (SLOT_BYTES + 1))
    for _ in range(4):
        outbox.put(b"x")
    outbox.put(b"late")
    outbox.put_latest("job", b"late")
    outbox.put_preview("job", b"late")
    assert taken(outbox) == []
    assert outbox.closing is CLOSE_SLOW_CLIENT


def test_whoever_takes_from_a_full_outbox_at_once_is_not_too_slow() -> None:
    outbox, sent = Outbox(max_bytes=3 * (SLOT_BYTES + 1)), []
    outbox.on_full = lambda: sent.extend(outbox.take())
    for number in range(10):
        outbox.put(b"%d" % number)
    assert [*sent, *outbox.take()] == [b"%d" % number for number in range(10)]
    assert outbox.closing is None


def test_a_message_larger_than_the_bound_may_wait_alone() -> None:
    outbox = Outbox(max_bytes=1000)
    outbox.put(bytes(2000))
    assert outbox.closing is None
    outbox.put(b"one more")
    assert outbox.closing is CLOSE_SLOW_CLIENT


def test_frames_that_were_taken_make_room_again() -> None:
    outbox = Outbox(max_bytes=2 * (SLOT_BYTES + 2))
    for _ in range(10):
        outbox.put(b"ab")
        outbox.put(b"cd")
        assert taken(outbox) == [b"ab", b"cd"]
    assert outbox.closing is None


def test_conflated_frames_do_not_count_as_messages_and_are_bounded_by_themselves() -> None:
    outbox = Outbox(max_bytes=1)
    for number in range(1000):
        outbox.put_latest("job", b"%d" % number)
    assert outbox.take() == [b"999"]
    for number in range(2 * MAX_LATEST_BYTES // SLOT_BYTES):
        outbox.put_latest(str(number), b"%d" % number)
    waiting = taken(outbox)
    assert sum(len(frame) + SLOT_BYTES for frame in waiting) <= MAX_LATEST_BYTES
    assert waiting[-1] == b"%d" % (number)
    assert outbox.closing is None


def test_a_replay_of_any_length_goes_out_in_its_place_a_chunk_at_a_time() -> None:
    outbox = Outbox(max_bytes=1000)
    frames = [b"%06d" % number + bytes(994) for number in range(1000)]
    outbox.put(b"resumed")
    outbox.replay(frames)
    outbox.replay([])
    outbox.put(b"live")
    first = outbox.take()
    assert sum(map(len, first)) <= CHUNK_BYTES + 1000
    assert [*first, *taken(outbox)] == [b"resumed", *frames, b"live"]
    assert outbox.closing is None


def test_a_closing_outbox_sends_what_waits_and_takes_nothing_more() -> None:
    outbox = Outbox()
    outbox.put(b"last words")
    outbox.put_preview("job", b"picture")
    outbox.close(CLOSE_GOING_AWAY)
    outbox.put(b"too late")
    outbox.replay([b"too late"])
    assert taken(outbox) == [b"last words"]
    assert outbox.closing is CLOSE_GOING_AWAY


def test_it_says_once_that_there_is_something_to_take_until_that_was_taken() -> None:
    outbox, told = Outbox(), []
    outbox.on_ready = lambda: told.append(len(told))
    for _ in range(3):
        outbox.put(b"news")
        outbox.put_latest("job", b"10 %")
        outbox.put_preview("job", b"picture")
    assert len(told) == 1
    taken(outbox)
    outbox.put_preview("job", b"picture")
    assert len(told) == 2
    outbox.close(CLOSE_GOING_AWAY)
    assert len(told) == 3


def test_progress_that_piles_up_drops_no_state_that_is_told_only_when_it_changes() -> None:
    outbox = Outbox()
    states = ("system:status", "system:backends", "queue:state")
    for key in states:
        outbox.put_latest(key, key.encode())
    for number in range(2 * MAX_LATEST_BYTES // SLOT_BYTES):
        outbox.put_latest(f"job{number}", b"")
    assert taken(outbox)[: len(states)] == [key.encode() for key in states]
