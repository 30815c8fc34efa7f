"""What the text encoders said, kept for jobs that ask the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

#: Most memory that one model's encodings take, in bytes.
MOST_BYTES: Final = 64 << 20


class Encodings:
    """The latest encodings by what was asked, the longest unused given up first.  Values have `nbytes`."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, asked: Hashable) -> Any | None:
        """What is kept for this, or None."""
        if asked not in self._kept:
            return None
        self._kept.move_to_end(asked)
        return self._kept[asked]

    def keep(self, asked: Hashable, encoding: Any) -> None:
        """Keep it, if need be instead of others."""
        replaced = self._kept.pop(asked, None)
        self._bytes += encoding.nbytes - (0 if replaced is None else replaced.nbytes)
        self._kept[asked] = encoding
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.nbytes
