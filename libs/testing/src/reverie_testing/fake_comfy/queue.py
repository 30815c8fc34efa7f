"""The prompts that wait, run and are remembered, in memory only."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: (number, prompt id, graph, extra data, output nodes): the heap compares from the left, down to the dicts.
Item = tuple[float, str, dict[str, Any], dict[str, Any], list[str]]
HISTORY_MAX = 10_000


@dataclass
class PromptQueue:
    """A heap by number, at most one prompt that runs, and the history."""

    changed: Callable[[], None]
    pending: list[Item] = field(default_factory=list)
    running: Item | None = None
    history: dict[str, dict[str, Any]] = field(default_factory=dict)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def remaining(self) -> int:
        """Running and waiting."""
        return len(self.pending) + (self.running is not None)

    def put(self, item: Item) -> None:
        """Queue it; TypeError, although it is queued, if number and id are those of another one."""
        self._filled.set()
        heapq.heappush(self.pending, item)
        self.changed()

    async def take(self) -> Item:
        """The next one, which runs from now on."""
        while not self.pending:
            self._filled.clear()
            await self._filled.wait()
        item = self.pending[0]
        self._remove(0)
        self.running = item
        self.changed()
        return item

    def done(self, entry: dict[str, Any]) -> None:
        """The running one ended so."""
        assert self.running is not None
        if len(self.history) >= HISTORY_MAX:
            del self.history[next(iter(self.history))]
        prompt_id = self.running[1]
        self.history.pop(prompt_id, None)
        self.history[prompt_id] = {"prompt": list(self.running), **entry}
        self.running = None
        self.changed()

    def delete(self, prompt_id: str) -> bool:
        """Drop a waiting prompt of that id; whether there was one."""
        for index, item in enumerate(self.pending):
            if item[1] == prompt_id:
                self._remove(index)
                self.changed()
                return True
        return False

    def clear(self) -> None:
        """Drop all that wait."""
        self.pending.clear()
        self.changed()

    def _remove(self, index: int) -> None:
        del self.pending[index]
        try:
            heapq.heapify(self.pending)
        except TypeError:  # equal number and id
            self.pending.sort(key=lambda item: item[0])
