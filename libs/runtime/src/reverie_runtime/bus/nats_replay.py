"""What a watch has seen and what it may still miss: pure decisions, no I/O.

A stream's sequence is the bucket's revision.  A consumer numbers its deliveries from 1, so a lost delivery shows.
"""

from __future__ import annotations

from typing import Final

from reverie_runtime.bus.port import Entry, SnapshotBegin, SnapshotEnd, WatchEvent

#: How often a consumer may say "nothing left" while listed keys have not come, before it is built anew.
STALLED_CHECKS: Final = 3


class Interrupted(Exception):
    """Build the consumer anew; `Replay.start` tells from where."""


class Replay:
    """Follows one bucket over any number of consumers."""

    def __init__(self, *, history: int, whole: bool = False) -> None:
        self._history = history
        self._whole = whole  # the snapshot has every kept revision, not only the latest of each key
        self._caught_up = False
        self._epoch = ""
        self._created = ""  # when the stream was made: another time is another bucket
        self._last = 0  # everything up to here was told
        self._covered = 0  # a hole up to here is older than the snapshot
        self._target = 0  # the stream's last sequence when this consumer was asked for
        self._delivered = 0  # deliveries of this consumer
        self._complete = False  # the snapshot was told to its end
        self._seen: set[str] = set()
        self._missing: set[str] | None = None
        self._stalled = 0

    @property
    def complete(self) -> bool:
        """Whether the snapshot was told to its end; until then `listed` wants to know what keys there are."""
        return self._complete

    def start(self, created: str, last_sequence: int) -> int:
        """The sequence a new consumer must start from; 0 asks for a snapshot."""
        self._delivered = 0
        self._target = last_sequence
        if self._complete and created == self._created and last_sequence >= self._last:
            return self._last + 1
        # The same stream with fewer messages lost its tail (a restored backup, say): what comes is other history.
        rolled_back = created == self._created and last_sequence < self._last
        self._epoch = f"{created}/{last_sequence}" if rolled_back else self._epoch
        if created != self._created:
            self._epoch = created
        self._created = created
        self._complete = False
        self._last = last_sequence
        self._seen = set()
        self._missing = None
        self._stalled = 0
        self._caught_up = not self._whole
        return 0

    def started(self, pending: int) -> list[WatchEvent]:
        """The consumer exists, with so many messages to deliver."""
        if not self._complete:
            self._caught_up = self._caught_up or pending == 0
            return [SnapshotBegin(self._epoch)]
        if pending == 0 and self._target > self._last:
            self._restart()
        return []

    def listed(self, keys: set[str], last_sequence: int) -> list[WatchEvent]:
        """The keys that exist now, asked for after the consumer was made."""
        if self._complete:
            return []
        if self._missing is None:
            self._covered = last_sequence
        self._missing = keys - self._seen
        return self._end_snapshot()

    def delivered(
        self, key: str, value: bytes | None, *, sequence: int, delivery: int, pending: int
    ) -> list[WatchEvent]:
        """One message, after which the consumer has `pending` more."""
        if delivery != self._delivered + 1:
            raise Interrupted("a delivery was lost")
        self._delivered = delivery
        if self._complete:
            return self._live(Entry(key, value, sequence), pending)
        self._caught_up = self._caught_up or pending == 0
        known = key in self._seen
        self._seen.add(key)
        self._last = max(self._last, sequence)
        # A snapshot is of keys that exist; one deleted while it was told is taken back.
        events: list[WatchEvent] = [Entry(key, value, sequence)] if known or value is not None else []
        if self._missing is not None:
            self._missing.discard(key)
            events += self._end_snapshot()
        return events

    def idle(self, delivery: int) -> None:
        """The server says that `delivery` was its last and that it has nothing more."""
        if delivery != self._delivered:
            raise Interrupted("a delivery was lost")
        if not self._complete:
            self._caught_up = True
            self._stalled += 1
            if self._stalled >= STALLED_CHECKS:
                raise Interrupted("the server did not deliver every key")

    def _live(self, entry: Entry, pending: int) -> list[WatchEvent]:
        hole = entry.revision > max(self._last, self._covered) + 1
        # With a history of 1 an overwritten revision may go unseen, its successor comes; but after an interruption
        # a hole may hide a key that is gone altogether.
        if hole and (self._history > 1 or self._last < self._target):
            self._restart()
        if pending == 0 and entry.revision < self._target:
            self._restart()
        self._last = entry.revision
        return [entry]

    def _end_snapshot(self) -> list[WatchEvent]:
        if self._missing or not self._caught_up:
            return []
        self._complete = True
        self._target = 0
        self._seen = set()
        return [SnapshotEnd(self._last)]

    def _restart(self) -> None:
        self._complete = False
        raise Interrupted("revisions were discarded before they were delivered")
