"""What a watch concludes from what it was delivered."""

import pytest

from reverie_runtime.bus.nats_replay import ATTEMPTS, SHORT_CHECKS, STALLED_BEATS, Interrupted, Replay
from reverie_runtime.bus.port import Entry, SnapshotBegin, SnapshotEnd, WatchEvent


def told(replay: Replay, key: str, sequence: int, delivery: int, *, pending: int = 0) -> list[WatchEvent]:
    return replay.delivered(key, b"", sequence=sequence, delivery=delivery, pending=pending)


def complete(*, history: int = 64, last: int = 3) -> Replay:
    """A replay that has told the snapshot of one key, at revision `last`."""
    replay = Replay(history=history)
    assert replay.start("monday", last) == 0
    assert [type(event) for event in replay.started(1)] == [SnapshotBegin]
    told(replay, "a", last, 1)
    assert replay.listed({"a": 1}, last) == [SnapshotEnd(last)]
    return replay


def test_a_snapshot_ends_only_when_every_listed_key_came() -> None:
    replay = Replay(history=1)
    replay.start("monday", 2)
    replay.started(0)  # the server may say so although there are keys
    assert replay.listed({"a": 1, "b": 1}, 2) == []
    assert told(replay, "a", 1, 1) == [Entry("a", b"", 1)]
    assert told(replay, "b", 2, 2) == [Entry("b", b"", 2), SnapshotEnd(2)]


def test_a_listed_key_that_vanished_is_not_waited_for() -> None:
    replay = Replay(history=1)
    replay.start("monday", 2)
    replay.started(2)
    replay.listed({"a": 1, "b": 1}, 2)
    told(replay, "b", 2, 1)
    assert replay.listed({"b": 1}, 3) == [SnapshotEnd(2)]


def test_a_server_that_withholds_a_key_is_asked_again_from_the_start() -> None:
    replay = Replay(history=1)
    for _ in range(2 * ATTEMPTS):  # without end: a mirror that lacks a key is wrong
        replay.start("monday", 2)
        replay.started(2)
        replay.listed({"a": 1}, 2)
        for _ in range(SHORT_CHECKS - 1):
            replay.idle(0, passed=2, stalled=False)
            assert replay.listed({"a": 1}, 2) == []
        replay.idle(0, passed=2, stalled=False)
        with pytest.raises(Interrupted, match="every key"):
            replay.listed({"a": 1}, 2)
    assert replay.start("monday", 2) == 0


def test_a_key_deleted_during_the_snapshot_is_taken_back() -> None:
    replay = Replay(history=64)
    replay.start("monday", 2)
    replay.started(2)
    assert told(replay, "a", 1, 1) == [Entry("a", b"", 1)]
    assert replay.delivered("a", None, sequence=3, delivery=2, pending=1) == [Entry("a", None, 3)]
    assert replay.delivered("b", None, sequence=4, delivery=3, pending=0) == []


def test_after_an_interruption_it_continues_behind_the_last_revision() -> None:
    replay = complete()
    assert told(replay, "a", 4, 2) == [Entry("a", b"", 4)]
    assert replay.start("monday", 6) == 5
    assert replay.started(2) == []
    assert told(replay, "a", 5, 1, pending=1) == [Entry("a", b"", 5)]


@pytest.mark.parametrize(("created", "last"), [("tuesday", 3), ("monday", 2)])
def test_another_bucket_of_the_same_name_is_told_anew(created: str, last: int) -> None:
    replay = complete(last=3)
    assert replay.start(created, last) == 0
    assert [type(event) for event in replay.started(1)] == [SnapshotBegin]


def test_an_interrupted_snapshot_is_told_anew() -> None:
    replay = Replay(history=1)
    replay.start("monday", 2)
    replay.started(2)
    told(replay, "a", 1, 1)
    assert replay.start("monday", 2) == 0
    assert [type(event) for event in replay.started(2)] == [SnapshotBegin]


def test_a_lost_delivery_continues_without_a_new_snapshot() -> None:
    replay = complete(last=3)
    with pytest.raises(Interrupted):
        told(replay, "a", 5, 3)
    assert replay.start("monday", 5) == 4


def test_a_heartbeat_that_counts_more_deliveries_shows_a_lost_one() -> None:
    replay = complete(last=3)
    replay.idle(1, passed=3, stalled=False)
    with pytest.raises(Interrupted):
        replay.idle(2, passed=4, stalled=False)


@pytest.mark.parametrize("history", [1, 64])
def test_revisions_discarded_while_away_make_a_new_snapshot(history: int) -> None:
    replay = complete(history=history, last=3)
    assert replay.start("monday", 9) == 4
    replay.started(2)
    with pytest.raises(Interrupted):
        told(replay, "a", 6, 1, pending=1)
    assert replay.start("monday", 9) == 0


def test_newest_revisions_discarded_while_away_make_a_new_snapshot() -> None:
    replay = complete(last=3)
    replay.start("monday", 5)
    with pytest.raises(Interrupted):
        replay.started(0)
    assert replay.start("monday", 5) == 0

    replay = complete(last=3)
    replay.start("monday", 5)
    replay.started(1)
    with pytest.raises(Interrupted):
        told(replay, "a", 4, 1, pending=0)
    assert replay.start("monday", 5) == 0


def test_with_one_revision_kept_a_live_reader_may_skip_overwritten_ones() -> None:
    replay = complete(history=1, last=3)
    assert told(replay, "a", 7, 2) == [Entry("a", b"", 7)]


def test_with_a_history_kept_a_live_reader_may_not_skip() -> None:
    replay = complete(history=64, last=3)
    with pytest.raises(Interrupted):
        told(replay, "a", 7, 2)
    assert replay.start("monday", 7) == 0


def test_a_hole_that_is_older_than_the_snapshot_is_no_gap() -> None:
    replay = Replay(history=64)
    replay.start("monday", 2)
    replay.started(1)
    told(replay, "a", 1, 1)
    assert replay.listed({"a": 1}, 6) == [SnapshotEnd(2)]
    assert told(replay, "a", 7, 2) == [Entry("a", b"", 7)]


def begun(*, last: int, pending: int) -> Replay:
    """A replay of a whole history that has yet to be told."""
    replay = Replay(history=64, whole=True)
    assert replay.start("monday", last) == 0
    replay.started(pending)
    return replay


def test_a_server_that_waits_for_our_answer_has_not_told_its_history_to_the_end() -> None:
    replay = begun(last=4, pending=4)
    replay.listed({"a": 3, "b": 1}, 4)
    told(replay, "a", 1, 1, pending=3)
    replay.idle(1, passed=1, stalled=True)
    assert told(replay, "b", 2, 2, pending=2) == [Entry("b", b"", 2)]  # the last key, not the last revision
    assert told(replay, "a", 3, 3, pending=1) == [Entry("a", b"", 3)]
    assert told(replay, "a", 4, 4, pending=0) == [Entry("a", b"", 4), SnapshotEnd(4)]


def test_what_was_purged_after_it_was_told_does_not_stand_for_what_came_in_its_place() -> None:
    replay = begun(last=4, pending=2)
    told(replay, "a", 1, 1, pending=1)
    told(replay, "a", 2, 2, pending=2)
    replay.idle(2, passed=2, stalled=True)
    assert replay.listed({"a": 2}, 4) == []  # as many as were told, but others
    replay.delivered("a", None, sequence=3, delivery=3, pending=1)
    assert told(replay, "a", 4, 4, pending=0) == [Entry("a", b"", 4), SnapshotEnd(4)]


def test_a_history_ends_where_the_stream_ended_when_it_began_however_much_is_written_meanwhile() -> None:
    replay = begun(last=2, pending=2)
    replay.listed({"a": 2}, 2)
    told(replay, "a", 1, 1, pending=500)
    assert told(replay, "a", 2, 2, pending=1000) == [Entry("a", b"", 2), SnapshotEnd(2)]
    assert told(replay, "a", 3, 3, pending=2000) == [Entry("a", b"", 3)]


def test_a_later_revision_does_not_stand_for_a_listed_one() -> None:
    replay = begun(last=1, pending=1)
    replay.listed({"a": 1}, 1)
    assert told(replay, "a", 2, 1, pending=0) == [Entry("a", b"", 2)]
    assert replay.listed({"a": 2}, 2) == []


def test_nothing_is_listed_again_while_what_is_listed_is_on_its_way() -> None:
    replay = begun(last=3, pending=3)
    assert replay.wants_list
    replay.listed({"a": 3}, 3)
    for sequence in (1, 2):  # each was the last one when it was sent
        told(replay, "a", sequence, sequence, pending=0)
        assert not replay.wants_list
    assert told(replay, "a", 3, 3, pending=0) == [Entry("a", b"", 3), SnapshotEnd(3)]


def test_what_was_purged_on_its_way_is_looked_for_in_another_list() -> None:
    replay = begun(last=2, pending=2)
    replay.listed({"a": 1, "b": 1}, 2)
    replay.delivered("a", None, sequence=3, delivery=1, pending=0)
    assert replay.wants_list


def test_an_interrupted_history_is_told_from_its_beginning_however_far_the_stream_is() -> None:
    replay = begun(last=9, pending=9)
    replay.listed({"a": 9}, 9)
    told(replay, "a", 1, 1, pending=8)
    replay.idle(1, passed=1, stalled=True)
    assert replay.start("monday", 9) == 0


def withheld(replay: Replay) -> list[WatchEvent]:
    """The server tells one of a key's two revisions, again and again, and has no more."""
    replay.start("monday", 2)
    replay.started(2)
    replay.listed({"a": 2}, 2)
    told(replay, "a", 2, 1)
    for _ in range(SHORT_CHECKS):
        events = replay.listed({"a": 2}, 2)
    return events


def test_a_server_that_withholds_a_revision_is_asked_a_few_times_and_then_the_history_is_doubtful() -> None:
    replay = Replay(history=64, whole=True)
    for attempt in range(1, ATTEMPTS):
        with pytest.raises(Interrupted, match="every revision"):
            withheld(replay)
        assert replay.shortfalls == attempt
    assert withheld(replay) == [SnapshotEnd(2, doubtful=2)]
    assert told(replay, "a", 3, 2) == [Entry("a", b"", 3)]


def test_listed_revisions_that_are_on_their_way_are_not_withheld() -> None:
    replay = begun(last=1, pending=1)
    replay.listed({"a": 1}, 1)
    for sequence in range(1, 3 * SHORT_CHECKS):  # each was the last one when it was sent, and is not any more
        told(replay, "a", sequence, sequence, pending=0)
        ended = replay.listed({"a": 3 * SHORT_CHECKS}, 3 * SHORT_CHECKS)
        assert ended == []


def test_a_server_that_waits_for_ever_is_left() -> None:
    replay = begun(last=9, pending=9)
    for _ in range(STALLED_BEATS):
        replay.idle(0, passed=0, stalled=True)
    with pytest.raises(Interrupted):
        replay.idle(0, passed=0, stalled=True)


def test_a_consumer_that_passes_what_was_written_while_away_makes_a_new_snapshot() -> None:
    replay = complete(last=3)
    assert replay.start("monday", 6) == 4
    replay.started(3)
    told(replay, "a", 4, 1, pending=2)
    with pytest.raises(Interrupted):
        replay.idle(1, passed=6, stalled=False)
    assert replay.start("monday", 6) == 0
