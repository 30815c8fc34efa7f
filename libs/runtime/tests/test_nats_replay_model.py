"""A watch of a whole history against a server that stalls, lies and dies: what it vouches for, it has told.

A server that lies discards nothing here: one revision withheld and another discarded since it was told, both of one
key, make up for each other in the stream's list.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from reverie_runtime.bus.nats_replay import Interrupted, Replay
from reverie_runtime.bus.port import Entry, SnapshotBegin, SnapshotEnd, WatchEvent

HISTORY = 4
LONG = 1000
#: Deliveries that the consumer sends before it waits for an answer.
WINDOW = 3
KEYS = st.sampled_from("abc")


class WholeHistory(RuleBasedStateMachine):
    """One stream, one ordered consumer at a time, and the messages between it and the replay."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, tuple[str, bytes | None]] = {}
        self.last = 0
        self.lies, self.history = False, HISTORY
        self.replay = Replay(history=HISTORY, whole=True)
        self.told: set[int] = set()
        self.vouched: int | None = None  # nothing above it may be missing from what was told
        self.connected = False
        self.line: deque[Any] = deque()
        self.passed = self.sent = self.unread = 0

    @initialize(lies=st.booleans())
    def begin(self, lies: bool) -> None:
        self.lies, self.history = lies, LONG if lies else HISTORY

    # -- the stream

    @rule(key=KEYS)
    def somebody_writes(self, key: str) -> None:
        self._append(key, b"")

    @precondition(lambda self: not self.lies)
    @rule(key=KEYS)
    def somebody_purges(self, key: str) -> None:
        for sequence in [each for each, (of, _) in self.kept.items() if of == key]:
            del self.kept[sequence]
        self._append(key, None)

    def _append(self, key: str, value: bytes | None) -> None:
        self.last += 1
        self.kept[self.last] = (key, value)
        own = [each for each, (of, _) in self.kept.items() if of == key]
        for sequence in own[: -self.history]:
            del self.kept[sequence]

    def _pending(self) -> int:
        return sum(each > self.passed for each in self.kept)

    # -- the consumer

    @precondition(lambda self: self.connected)
    @rule(withheld=st.sampled_from([False, False, False, True]))
    def it_delivers(self, withheld: bool) -> None:
        following = min((each for each in self.kept if each > self.passed), default=None)
        if following is None or self.unread >= WINDOW:
            return
        self.passed = following
        if withheld and self.lies:
            return
        self.sent += 1
        self.unread += 1
        self.line.append((following, *self.kept[following], self.sent, self._pending()))

    @precondition(lambda self: self.connected)
    @rule()
    def its_heart_beats(self) -> None:
        if not self._pending():
            self.passed = self.last
        self.line.append((self.sent, self.passed, self.unread >= WINDOW))

    @rule()
    def it_is_lost(self) -> None:
        self.connected = False

    # -- the watch

    @rule(messages=st.integers(1, 9))
    def it_reads(self, messages: int) -> None:
        try:
            if not self.connected:
                self._connect()
            for _ in range(min(messages, len(self.line))):
                self._read(self.line.popleft())
        except Interrupted:
            self.connected = False

    def _connect(self) -> None:
        first = self.replay.start("monday", self.last)
        self.connected, self.passed, self.sent, self.unread = True, max(0, first - 1), 0, 0
        self.line.clear()
        self._tell(self.replay.started(self._pending()))
        if not self.replay.complete:
            self._list()

    def _list(self) -> None:
        counts = Counter(key for key, _ in self.kept.values())
        self._tell(self.replay.listed(counts, self.last))

    def _read(self, message: tuple[Any, ...]) -> None:
        if len(message) == 3:
            delivery, passed, stalled = message
            self.replay.idle(delivery, passed=passed, stalled=stalled)
            if not (stalled or self.replay.complete):
                self._list()
            return
        sequence, key, value, delivery, pending = message
        self.unread -= 1
        self._tell(self.replay.delivered(key, value, sequence=sequence, delivery=delivery, pending=pending))
        if self.replay.wants_list:
            self._list()

    def _tell(self, events: list[WatchEvent]) -> None:
        for event in events:
            match event:
                case SnapshotBegin():
                    self.vouched = None
                case Entry(revision=revision):
                    self.told.add(revision)
                    if self.vouched is not None:
                        self._judge(revision)
                case SnapshotEnd(revision=revision, doubtful=doubtful):
                    self.vouched = doubtful
                    self._judge(revision)

    def _judge(self, until: int) -> None:
        assert self.vouched is not None
        owed = {each for each, (_, value) in self.kept.items() if value is not None}
        missing = {each for each in owed - self.told if self.vouched < each <= until}
        assert not missing

    def teardown(self) -> None:
        """Once nobody writes, and the server tells the truth, everything is told and vouched for."""
        self.lies = False
        for _ in range(4 * (self.last + 4)):
            if self.connected:
                self.it_delivers(withheld=False)
                self.its_heart_beats()
            self.it_reads(messages=9)
        assert self.replay.complete
        assert self.replay.shortfalls == 0 or self.vouched
        self._judge(self.last)


TestWholeHistory = WholeHistory.TestCase
TestWholeHistory.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
