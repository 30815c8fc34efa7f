"""The log that resumes are served from: never a gap, never a duplicate, and honest when it cannot."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reverie_gateway.event_log import EventLog
from reverie_gateway.events import Delivery, Event

RETENTION_S = 100.0


def event(owner: str, seq: int) -> Event:
    return Event(owner, f"job{seq}", Delivery.STATE, f"frame {seq}", seq)


def frames(events: list[Event] | None) -> list[str] | None:
    return None if events is None else [logged.frame for logged in events]


def filled(*revisions: int, owner: str = "u", at: float = 0.0) -> EventLog:
    log = EventLog(retention_s=RETENTION_S)
    for seq in revisions:
        log.add(seq, at=at, event=event(owner, seq))
    return log


def test_a_client_gets_every_event_after_its_cursor_once_and_in_order() -> None:
    log = filled(1, 2, 3, 4)
    assert frames(log.since("u", 2, now=1)) == ["frame 3", "frame 4"]
    assert frames(log.since("u", 4, now=1)) == []
    assert frames(log.since("u", 0, now=1)) == ["frame 1", "frame 2", "frame 3", "frame 4"]


def test_a_client_gets_only_its_own_events() -> None:
    log = filled(1, 2)
    log.add(3, at=0, event=event("other", 3))
    assert frames(log.since("other", 0, now=1)) == ["frame 3"]
    assert frames(log.since("nobody", 0, now=1)) == []


def test_a_cursor_from_the_future_is_of_another_bucket_and_is_not_recovered() -> None:
    assert filled(1, 2).since("u", 3, now=1) is None


def test_a_cursor_older_than_what_was_purged_is_not_recovered() -> None:
    log = filled(1, 5, 6, at=0)
    assert log.since("u", 1, now=RETENTION_S + 1) is None
    assert frames(log.since("u", 4, now=RETENTION_S + 1)) == ["frame 5", "frame 6"]


def test_a_hole_that_is_younger_than_the_retention_hides_nothing_of_a_job() -> None:
    log = filled(1, 5, 6, at=50)
    assert frames(log.since("u", 1, now=60)) == ["frame 5", "frame 6"]


def test_what_nobody_is_told_of_takes_no_room_from_what_somebody_is() -> None:
    log = EventLog(retention_s=RETENTION_S, max_events=10)
    log.add(1, at=0, event=event("u", 1))
    for seq in range(2, 100):  # drafts of a dream
        log.add(seq, at=1, event=None)
    log.add(100, at=2, event=event("u", 100))
    assert len(log) == 4
    assert frames(log.since("u", 0, now=2)) == ["frame 1", "frame 100"]
    assert frames(log.since("u", 50, now=2)) == ["frame 100"]


def test_when_it_is_full_it_forgets_the_oldest_and_says_so() -> None:
    log = EventLog(retention_s=RETENTION_S, max_events=10)
    for seq in range(1, 12):
        log.add(seq, at=0, event=event("u", seq))
    assert log.since("u", 4, now=1) is None
    assert frames(log.since("u", 5, now=1)) == [f"frame {seq}" for seq in range(6, 12)]


def test_after_a_wiped_server_old_cursors_mean_nothing() -> None:
    log = filled(1, 2, 3)
    log.reset()
    log.add(1, at=0, event=event("u", 1))
    assert log.since("u", 3, now=1) is None
    assert frames(log.since("u", 0, now=1)) == ["frame 1"]


def test_no_cursor_before_a_doubt_is_recovered_and_every_later_one_is() -> None:
    log = filled(1, 2, 3, 4)
    log.doubt(2)
    log.doubt(1)
    assert log.since("u", 1, now=1) is None
    assert frames(log.since("u", 2, now=1)) == ["frame 3", "frame 4"]
    log.reset()
    log.add(1, at=0, event=event("u", 1))
    assert frames(log.since("u", 0, now=1)) == ["frame 1"]


def test_forgetting_takes_no_doubt_away() -> None:
    log = EventLog(retention_s=RETENTION_S, max_events=10)
    log.doubt(9)
    for seq in range(1, 12):
        log.add(seq, at=0, event=event("u", seq))
    assert log.since("u", 8, now=1) is None
    assert frames(log.since("u", 9, now=1)) == ["frame 10", "frame 11"]


class ManyClients(RuleBasedStateMachine):
    """Clients that come and go at any time: what they got live and by resume is everything, once, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log = EventLog(retention_s=RETENTION_S, max_events=40)
        self.seq = 0
        self.truth: dict[str, list[str]] = {"alice": [], "bob": []}
        self.got: dict[str, list[str]] = {"alice": [], "bob": []}
        self.cursor = {"alice": 0, "bob": 0}
        self.online = {"alice": False, "bob": False}

    @rule(owner=st.sampled_from(["alice", "bob"]))
    def something_happens(self, owner: str) -> None:
        self.seq += 1
        happened = event(owner, self.seq)
        self.log.add(self.seq, at=0, event=happened)
        self.truth[owner].append(happened.frame)
        if self.online[owner]:
            self.got[owner].append(happened.frame)
        for client, online in self.online.items():
            if online:
                self.cursor[client] = self.seq

    @rule()
    def a_job_is_purged(self) -> None:
        self.seq += 1
        self.log.add(self.seq, at=0, event=None)

    @rule(owner=st.sampled_from(["alice", "bob"]))
    def goes(self, owner: str) -> None:
        self.online[owner] = False

    @rule(owner=st.sampled_from(["alice", "bob"]))
    def comes_back(self, owner: str) -> None:
        if self.online[owner]:
            return
        missed = self.log.since(owner, self.cursor[owner], now=1)
        if missed is None:
            self.got[owner] = list(self.truth[owner])  # starts from the current state instead
        else:
            self.got[owner] += [logged.frame for logged in missed]
        self.cursor[owner] = self.seq
        self.online[owner] = True

    @invariant()
    def whoever_is_online_has_seen_everything_once_and_in_order(self) -> None:
        for owner, online in self.online.items():
            if online:
                assert self.got[owner] == self.truth[owner]


TestManyClients = ManyClients.TestCase
TestManyClients.settings = settings(max_examples=100, stateful_step_count=120, deadline=None)
