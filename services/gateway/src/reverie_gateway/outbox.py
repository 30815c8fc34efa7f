"""What one socket still has to be sent: bounded, and honest about what may be dropped.

Three kinds of frames.  *Messages* are never dropped: when too many wait, the client is closed with a code that
invites it back.  The *latest* of a key replaces an earlier one that has not been sent yet (progress, status).
*Previews* do the same and go out only when nothing else waits, so pictures never delay an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

from reverie_protocol.errors import CLOSE_SLOW_CLIENT, CloseCode

#: A text frame (str) or a binary one (bytes), as it goes out.
Frame = str | bytes

#: Beyond this many unsent messages, or this many bytes of them, a client counts as too slow.
MAX_MESSAGES = 20_000
MAX_BYTES = 8 << 20
#: Jobs with an unsent preview; beyond it the oldest preview is dropped.
MAX_PREVIEWS = 64
#: Keys with an unsent latest frame; beyond it the oldest is dropped.
MAX_LATEST = 4096


class Outbox:
    """Frames of one socket in the order they go out; one reader (`next`), any number of writers."""

    def __init__(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._numbers: Iterator[int] = count()
        self._texts: dict[int | str, str] = {}
        self._latest: dict[str, None] = {}
        self._previews: dict[str, bytes] = {}
        self._message_count = 0
        self._message_bytes = 0
        self._closing: CloseCode | None = None
        self._wakened = asyncio.Event()
        self._ending = asyncio.Event()

    @property
    def closing(self) -> CloseCode | None:
        """The code that this socket is about to be closed with, None while it is open."""
        return self._closing

    def put(self, frame: str) -> None:
        """A message that must arrive.  Overflow closes the socket with `CLOSE_SLOW_CLIENT`."""
        if self._closing is not None:
            return
        self._message_count += 1
        self._message_bytes += len(frame)
        if self._message_count > self._max_messages or self._message_bytes > self._max_bytes:
            self._overflow()
            return
        self._texts[next(self._numbers)] = frame
        self._wakened.set()

    def put_latest(self, key: str, frame: str) -> None:
        """A frame that replaces an unsent one of the same key, and goes behind all that waits."""
        if self._closing is not None:
            return
        self.drop_latest(key)
        if len(self._latest) >= MAX_LATEST:
            self.drop_latest(next(iter(self._latest)))
        self._texts[key] = frame
        self._latest[key] = None
        self._wakened.set()

    def drop_latest(self, key: str) -> None:
        """Forget an unsent latest frame: it has become untrue."""
        if key in self._latest:
            del self._latest[key]
            del self._texts[key]

    def put_preview(self, job_id: str, frame: bytes) -> None:
        """A picture of a job in the making; replaces an unsent one of the same job."""
        if self._closing is not None:
            return
        self._previews.pop(job_id, None)
        if len(self._previews) >= MAX_PREVIEWS:
            del self._previews[next(iter(self._previews))]
        self._previews[job_id] = frame
        self._wakened.set()

    def drop_preview(self, job_id: str) -> None:
        """Forget an unsent preview."""
        self._previews.pop(job_id, None)

    def close(self, code: CloseCode) -> None:
        """Take nothing more; what waits is still sent, then the socket is closed with `code`."""
        if self._closing is None:
            self._closing = code
            self._wakened.set()
            self._ending.set()

    async def until_closing(self) -> None:
        """Wait until `close` was called or the outbox overflowed."""
        await self._ending.wait()

    async def next(self) -> Frame | CloseCode:
        """The next frame, or the code to close with; waits until there is one."""
        while True:
            taken = self._take()
            if taken is not None:
                return taken
            self._wakened.clear()
            await self._wakened.wait()

    def _take(self) -> Frame | CloseCode | None:
        if self._texts:
            key = next(iter(self._texts))
            frame = self._texts.pop(key)
            if isinstance(key, str):
                del self._latest[key]
            else:
                self._message_count -= 1
                self._message_bytes -= len(frame)
            return frame
        if self._closing is not None:
            return self._closing
        if self._previews:
            return self._previews.pop(next(iter(self._previews)))
        return None

    def _overflow(self) -> None:
        self._texts.clear()
        self._latest.clear()
        self._previews.clear()
        self.close(CLOSE_SLOW_CLIENT)
