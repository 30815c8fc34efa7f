"""What has come in on one socket and waits for the application: a queue that is next to nothing while it is empty.

An `asyncio.Queue` keeps four double-ended queues, empty or not: an eighth of an idle socket's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """The part of `asyncio.Queue` that uvicorn uses, for one reader.

    Who fills it bounds it: uvicorn reads no more of a socket while a message waits here.
    """

    __slots__ = ("_items", "_waiting")

    def __init__(self) -> None:
        self._items: deque[T] | None = None
        self._waiting: asyncio.Future[None] | None = None

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._items is None

    def put_nowait(self, item: T) -> None:
        """Let the reader have it behind what waits already."""
        if self._items is None:
            self._items = deque()
        self._items.append(item)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> T:
        """The oldest item, as soon as there is one; a cancelled call loses none."""
        while self._items is None:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        item = self._items.popleft()
        if not self._items:
            self._items = None
        return item
