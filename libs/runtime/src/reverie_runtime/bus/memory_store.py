"""Buckets in memory: the revisions of one bucket, and what a write does to them.  Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reverie_runtime.bus.port import BucketConfig, Entry, RevisionConflict


class MemoryStore:
    """One bucket's revisions.  `created` tells it from a bucket of the same name before a wipe."""

    def __init__(self, config: BucketConfig, created: int) -> None:
        self.config = config
        self.created = created
        self.revision = 0
        self._entries: dict[int, Entry] = {}
        self._keys: dict[str, list[int]] = {}
        self._expiry: dict[int, float] = {}

    def entry(self, revision: int) -> Entry | None:
        """One revision, if it is kept."""
        return self._entries.get(revision)

    def latest(self, key: str) -> Entry | None:
        """A key's newest revision, also if that is a deletion."""
        revisions = self._keys.get(key)
        return self._entries[revisions[-1]] if revisions else None

    def history(self, key: str) -> list[Entry]:
        """A key's kept revisions, oldest first."""
        return [self._entries[revision] for revision in self._keys.get(key, [])]

    def live(self) -> Iterator[Entry]:
        """The newest revision of every key that exists, in order of revision."""
        newest = sorted(revisions[-1] for revisions in self._keys.values())
        return (self._entries[revision] for revision in newest if self._entries[revision].value is not None)

    def kept(self) -> Iterator[Entry]:
        """Every kept revision, in order."""
        return (self._entries[revision] for revision in sorted(self._entries))

    def write(self, key: str, value: bytes | None, *, now: float, expected: int | None = None) -> Entry:
        """Append a revision; RevisionConflict if the key's newest is not `expected`."""
        latest = self.latest(key)
        if expected is not None and expected != (latest.revision if latest else 0):
            raise RevisionConflict(f"{self.config.name}/{key} was changed by another writer")
        self.revision += 1
        entry = Entry(key, value, self.revision)
        self._entries[self.revision] = entry
        self._keys.setdefault(key, []).append(self.revision)
        if self.config.ttl_s:
            self._expiry[self.revision] = now + self.config.ttl_s
        for revision in self._keys[key][: -self.config.history]:
            self._discard(self._entries[revision])
        return entry

    def purge(self, key: str, *, now: float, expected: int | None = None) -> Entry:
        """Forget a key's revisions and mark it deleted; RevisionConflict if its newest is not `expected`."""
        latest = self.latest(key)
        if expected is not None and expected != (latest.revision if latest else 0):
            raise RevisionConflict(f"{self.config.name}/{key} was changed by another writer")
        for entry in self.history(key):
            self._discard(entry)
        return self.write(key, None, now=now)

    def expire(self, now: float) -> list[Entry]:
        """Discard what is too old; the deletions that this makes."""
        marks = []
        for revision in [revision for revision, due in self._expiry.items() if due <= now]:
            entry = self._entries[revision]
            gone = entry.value is not None and self.latest(entry.key) is entry
            self._discard(entry)
            if gone:
                marks.append(self.write(entry.key, None, now=now))
        return marks

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        return min(self._expiry.values(), default=None)

    def _discard(self, entry: Entry) -> None:
        del self._entries[entry.revision]
        self._expiry.pop(entry.revision, None)
        self._keys[entry.key].remove(entry.revision)
        if not self._keys[entry.key]:
            del self._keys[entry.key]
