"""What a watch has seen and what it may still miss: pure decisions, no I/O.

A stream's sequence is the bucket's revision.  A consumer numbers its deliveries from 1, so a lost delivery shows.
What a consumer never delivered shows in the stream's own list: so many revisions of each key there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reverie_runtime.bus.port import Entry, SnapshotBegin, SnapshotEnd, WatchEvent

#: How often a consumer may have passed listed revisions without delivering them, before it is built anew.
SHORT_CHECKS: Final = 3
#: So often is a snapshot begun anew that is short of revisions; then it is told as doubtful, if it has every key.
ATTEMPTS: Final = 3
#: Heartbeats in a row by which a consumer may say that it waits for our answer, which it got each time.
STALLED_BEATS: Final = 30


class Interrupted(Exception):
    """Build the consumer anew; `Replay.start` tells from where."""


class Replay:
    """Follows one bucket over any number of consumers."""

    def __init__(self, *, history: int, whole: bool = False) -> None:
        self._history = history
        self._whole = whole  # the snapshot has every kept revision, not only the latest of each key
        self._epoch = ""
        self._created = ""  # when the stream was made: another time is another bucket
        self._highest = 0  # of all that was ever told of this bucket
        self._last = 0  # everything up to here was told, or is gone
        self._covered = 0  # a hole up to here is older than the snapshot
        self._target = 0  # the stream's last sequence when this consumer was asked for
        self._delivered = 0  # deliveries of this consumer
        self._stalled = 0  # heartbeats since the last one that say that it waits for our answer
        self._complete = False  # the snapshot was told to its end
        self._shortfalls = 0  # snapshots in a row that the server did not tell in full
        # Of the present snapshot:
        self._caught_up = False  # the consumer had nothing left, or came to what was the end when it was made
        self._passed = 0  # the consumer has looked at the stream up to here
        self._told: dict[str, int] = {}  # revisions of each key that were delivered
        self._is_listed = False
        self._listed_to = 0
        self._owed: dict[str, int] = {}  # revisions of each key that are listed and were not delivered
        self._short_checks = 0
        self._begin_snapshot()

    @property
    def complete(self) -> bool:
        """Whether the snapshot was told to its end."""
        return self._complete

    @property
    def wants_list(self) -> bool:
        """Whether a list is of use now.  Not while what the last one lists is on its way: there is always more."""
        return not self._complete and (not self._is_listed or self._passed >= self._listed_to)

    @property
    def shortfalls(self) -> int:
        """How many snapshots in a row the server did not tell in full."""
        return self._shortfalls

    def start(self, created: str, last_sequence: int) -> int:
        """The sequence a new consumer must start from; 0 asks for a snapshot."""
        self._delivered = self._stalled = 0
        self._target = last_sequence
        if self._complete and created == self._created and last_sequence >= self._last:
            return self._last + 1
        # The same stream with fewer messages lost its tail (a restored backup, say): what comes is other history.
        if created != self._created:
            self._epoch, self._highest = created, 0
        elif last_sequence < self._highest:
            self._epoch, self._highest = f"{created}/{last_sequence}", 0
        self._created = created
        self._begin_snapshot()
        return 0

    def started(self, pending: int) -> list[WatchEvent]:
        """The consumer exists, with so many messages to deliver."""
        if not self._complete:
            self._caught_up = self._caught_up or pending == 0
            return [SnapshotBegin(self._epoch)]
        if pending == 0 and self._target > self._last:
            self._restart()
        return []

    def listed(self, counts: Mapping[str, int], last_sequence: int) -> list[WatchEvent]:
        """How many revisions of each key there are up to `last_sequence`, asked for after the consumer was made."""
        if self._complete:
            return []
        overdue = self._owed if self._passed >= self._listed_to else {}
        self._owed = {
            key: wanted - told
            for key, count in counts.items()
            if (wanted := count if self._whole else 1) > (told := self._told.get(key, 0))
        }
        self._is_listed, self._listed_to = True, last_sequence
        self._covered = 0 if self._whole else self._covered or last_sequence
        if not self._owed.keys().isdisjoint(overdue):
            self._short_checks += 1
        return self._take_as_it_is() if self._short_checks >= SHORT_CHECKS else self._end_snapshot()

    def delivered(
        self, key: str, value: bytes | None, *, sequence: int, delivery: int, pending: int
    ) -> list[WatchEvent]:
        """One message, after which the consumer has `pending` more."""
        if delivery != self._delivered + 1:
            raise Interrupted("a delivery was lost")
        self._delivered = delivery
        self._stalled = 0
        if self._complete:
            return self._live(Entry(key, value, sequence), pending)
        # Purges make the figure wrong in either direction: it is not enough (see `_end_snapshot`), and not needed.
        self._caught_up = self._caught_up or pending == 0 or sequence >= self._target
        told = self._told.get(key, 0)
        self._told[key] = told + 1
        self._passed = self._last = max(self._last, sequence)
        self._highest = max(self._highest, sequence)
        # A snapshot is of keys that exist; one deleted while it was told is taken back.
        events: list[WatchEvent] = [Entry(key, value, sequence)] if told or value is not None else []
        if key in self._owed:
            self._owed[key] -= 1
            if not self._owed[key]:
                del self._owed[key]
        return events + self._end_snapshot()

    def idle(self, delivery: int, *, passed: int, stalled: bool) -> None:
        """The server says that `delivery` was its last, and that it looked at the stream up to `passed`.

        If it is `stalled` it has more, and waits until we answer that we have read what it sent.
        """
        if delivery != self._delivered:
            raise Interrupted("a delivery was lost")
        if stalled:
            self._stalled += 1
            if self._stalled > STALLED_BEATS:
                raise Interrupted("the server waits for an answer that it has")
        elif not self._complete:
            self._caught_up = True
            self._passed = max(self._passed, passed)
        elif passed > max(self._last, self._covered):
            self._skipped(passed)

    def _live(self, entry: Entry, pending: int) -> list[WatchEvent]:
        if entry.revision > max(self._last, self._covered) + 1:
            self._skipped(entry.revision)
        if pending == 0 and entry.revision < self._target:
            self._restart()
        self._last = entry.revision
        self._highest = max(self._highest, entry.revision)
        return [entry]

    def _skipped(self, sequence: int) -> None:
        """The consumer came to `sequence` and did not deliver all before it."""
        # With a history of 1 an overwritten revision may go unseen, its successor comes; but after an interruption
        # a hole may hide a key that is gone altogether.
        if self._history > 1 or self._last < self._target:
            self._restart()

    def _begin_snapshot(self) -> None:
        self._complete = self._is_listed = False
        self._caught_up = not self._whole
        self._last = self._covered = self._passed = self._listed_to = self._short_checks = 0
        self._told, self._owed = {}, {}

    def _end_snapshot(self) -> list[WatchEvent]:
        """It ends when the consumer came to its end, and every listed revision has come: never before."""
        if not self._is_listed or self._owed or not self._caught_up:
            return []
        if self._whole and self._last > self._listed_to:
            return []  # what came last is not in the list yet, nor is what should have come before it
        self._shortfalls = 0
        # Everything up to the target that was not told is gone.
        self._last = max(self._last, self._target)
        return self._completed(doubtful=0)

    def _take_as_it_is(self) -> list[WatchEvent]:
        """The server withholds what it lists.  A key cannot be done without; revisions can, if we say so."""
        self._shortfalls += 1
        lacks_keys = any(key not in self._told for key in self._owed)
        if lacks_keys or self._shortfalls < ATTEMPTS:
            raise Interrupted(f"the server did not deliver every {'key' if lacks_keys else 'revision'}")
        self._covered = max(self._last, self._listed_to)
        return self._completed(doubtful=self._covered)

    def _completed(self, *, doubtful: int) -> list[WatchEvent]:
        end = SnapshotEnd(max(self._last, self._target), doubtful)
        self._complete = True
        self._highest = max(self._highest, end.revision)
        self._target = 0
        self._told, self._owed = {}, {}
        return [end]

    def _restart(self) -> None:
        self._complete = False
        raise Interrupted("revisions were discarded before they were delivered")
