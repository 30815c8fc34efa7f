"""The fake's folders: `input` and `output` outlive a restart, `temp` does not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


class Traversal(ValueError):
    """A name that leads out of its folder."""


def annotated(name: str) -> tuple[str, str, str]:
    """Where a node's `sub/name.png [input]` lies; without a mark it is an input."""
    kind = "input"
    for mark in ("input", "output", "temp"):
        if name.endswith(f" [{mark}]"):
            name, kind = name.removesuffix(f" [{mark}]"), mark
    subfolder, _, name = name.rpartition("/")
    return kind, subfolder, name


@dataclass
class Files:
    """Files in memory, by kind ("input", "output", "temp"), subfolder and name."""

    kept: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    _counters: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def read(self, kind: str, subfolder: str, name: str) -> bytes | None:
        """A file; None if there is none; Traversal."""
        if name.startswith("/") or ".." in name or ".." in subfolder.split("/"):
            raise Traversal
        return self.kept.get((kind, subfolder.strip("/"), name))

    def save(self, kind: str, prefix: str, data: bytes) -> dict[str, str]:
        """Keep an output under the next free number of its prefix, `sub/name_00001_.png`."""
        subfolder, _, name = prefix.rpartition("/")
        key = (kind, subfolder, name)
        self._counters[key] = self._counters.get(key, 0) + 1
        filename = f"{name}_{self._counters[key]:05}_.png"
        self.kept[kind, subfolder, filename] = data
        return {"filename": filename, "subfolder": subfolder, "type": kind}

    def upload(self, kind: str, subfolder: str, name: str, data: bytes, *, overwrite: bool) -> dict[str, str]:
        """Keep a client's file; other content under the same name gets a name of its own."""
        if ".." in subfolder.split("/") or subfolder.startswith("/"):
            raise Traversal
        stem, dot, suffix = name.rpartition(".")
        chosen, number = name, 1
        while not overwrite and self.kept.get((kind, subfolder, chosen), data) != data:
            chosen = f"{stem} ({number}){dot}{suffix}" if dot else f"{name} ({number})"
            number += 1
        self.kept[kind, subfolder, chosen] = data
        return {"name": chosen, "subfolder": subfolder, "type": kind}

    def names(self, kind: str) -> list[str]:
        """What a loader node offers."""
        return sorted(name for found, subfolder, name in self.kept if found == kind and not subfolder)

    def delete(self, kind: str, pattern: str = ".*") -> int:
        """Remove files whose name matches; how many there were."""
        gone = [key for key in self.kept if key[0] == kind and re.fullmatch(pattern, key[2])]
        for key in gone:
            del self.kept[key]
        return len(gone)

    def wipe_temp(self) -> None:
        """As every start does."""
        self.delete("temp")
        self._counters = {key: count for key, count in self._counters.items() if key[0] != "temp"}
