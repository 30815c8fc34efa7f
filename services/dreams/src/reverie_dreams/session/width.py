"""How many drafts a session keeps in flight: as many as keep the engine's batch full, and no more.  Pure.

What is measured is the queue: a draft that ends while none of its session waits means that the engine may have had
to do without; many waiting mean that they only grow old, and would be the wrong ones after a guide.
"""

from __future__ import annotations

from typing import Final

START: Final = 2
#: Part of the drafts in flight that should be waiting when one ends.
WAITING_PART: Final = 0.34


class Width:
    """`target` is how many to have in flight, 1..`most`."""

    def __init__(self, most: int) -> None:
        self.target = min(START, most)
        self._most = most
        self._idle = 0

    def on_ended(self, *, waiting: int) -> None:
        """A draft ended while so many of its session were waiting to be claimed."""
        if waiting == 0:
            self._idle = 0
            self.target = min(self._most, self.target + 1)
        elif waiting > max(1.0, WAITING_PART * self.target):
            # One round of it is chance; the target falls slowly.
            self._idle += 1
            if self._idle >= 4:
                self._idle = 0
                self.target = max(2 if self._most > 1 else 1, self.target - 1)
        else:
            self._idle = 0
