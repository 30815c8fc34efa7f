"""What one client still has to be sent: bounded, and honest about what may be dropped.  Pure.

Three kinds of frames.  *Messages* are never dropped: when too much of them waits, the client is closed with a code
that invites it back.  The *latest* of a key replaces an earlier one that has not been sent yet (progress, status).
*Previews* do the same and go out only when nothing else waits, so pictures never delay an event.

The bounds together are what a client that does not read may cost: with what its transport holds, under 1 MiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from reverie_protocol.errors import CLOSE_SLOW_CLIENT, CloseCode

#: Bytes of unsent messages beyond which a client counts as too slow, and what each costs beside its own bytes.
MAX_BYTES: Final = 512 << 10
SLOT_BYTES: Final = 100
#: Bytes of unsent latest frames; beyond it the oldest is dropped, but for what is told only when it changes.
MAX_LATEST_BYTES: Final = 128 << 10
LASTING: Final = frozenset({"system:status", "system:backends", "queue:state"})
#: Bytes of unsent previews; beyond it the oldest is dropped, but not the newest.
MAX_PREVIEW_BYTES: Final = 128 << 10
#: What is taken at once, in bytes, or one frame if that is larger.
CHUNK_BYTES: Final = 64 << 10


class Outbox:
    """Frames of one client in the order they go out.

    `on_ready` is called before there is something to take after nothing was, and when it is to be closed; `on_full`
    when the bound of messages is reached, to take some at once if the client can have them.
    """

    __slots__ = (
        "_closing",
        "_latest_bytes",
        "_max_bytes",
        "_message_bytes",
        "_number",
        "_preview_bytes",
        "_previews",
        "_replays",
        "_texts",
        "_told",
        "on_full",
        "on_ready",
    )

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self.on_ready: Callable[[], None] = _nobody
        self.on_full: Callable[[], None] = _nobody
        self._max_bytes = max_bytes
        self._number = 0
        self._texts: dict[int | str, bytes] = {}
        self._replays: dict[int | str, deque[bytes]] = {}
        self._previews: dict[str, bytes] = {}
        self._message_bytes = 0
        self._latest_bytes = 0
        self._preview_bytes = 0
        self._told = False
        self._closing: CloseCode | None = None

    def __bool__(self) -> bool:
        """Whether any frame waits."""
        return bool(self._texts or self._previews)

    @property
    def closing(self) -> CloseCode | None:
        """The code that this client is about to be closed with, None while it is open."""
        return self._closing

    def put(self, frame: bytes) -> None:
        """A message that must arrive.  Overflow closes the client with `CLOSE_SLOW_CLIENT`."""
        if self._closing is not None:
            return
        if not self._told:
            self.wake()
        size = len(frame) + SLOT_BYTES
        if self._message_bytes + size > self._max_bytes and not self._makes_room(size):
            self._overflow()
            return
        self._number = number = self._number + 1
        self._texts[number] = frame
        self._message_bytes += size

    def replay(self, frames: Iterable[bytes]) -> None:
        """Messages that the event log holds in any case: however many, they cost this client next to nothing."""
        waiting = deque(frames)
        if self._closing is not None or not waiting:
            return
        self.wake()
        self._number += 1
        self._texts[self._number] = b""
        self._replays[self._number] = waiting

    def put_latest(self, key: str, frame: bytes) -> None:
        """A frame that replaces an unsent one of the same key, and goes behind all that waits."""
        if self._closing is not None:
            return
        if not self._told:
            self.wake()
        texts = self._texts
        earlier = texts.pop(key, None)
        size = len(frame) + SLOT_BYTES
        if earlier is not None:
            size -= len(earlier) + SLOT_BYTES
        texts[key] = frame
        self._latest_bytes += size
        while self._latest_bytes > MAX_LATEST_BYTES and self._drop_oldest_before(key):
            pass

    def drop_latest(self, key: str) -> None:
        """Forget an unsent latest frame: it has become untrue."""
        frame = self._texts.pop(key, None)
        if frame is not None:
            self._latest_bytes -= len(frame) + SLOT_BYTES

    def put_preview(self, job_id: str, frame: bytes) -> None:
        """A picture of a job in the making; replaces an unsent one of the same job."""
        if self._closing is not None:
            return
        self.wake()
        self.drop_preview(job_id)
        self._preview_bytes += len(frame)
        while self._previews and self._preview_bytes > MAX_PREVIEW_BYTES:
            self.drop_preview(next(iter(self._previews)))
        self._previews[job_id] = frame

    def drop_preview(self, job_id: str) -> None:
        """Forget an unsent preview."""
        self._preview_bytes -= len(self._previews.pop(job_id, b""))

    def wake(self) -> None:
        """Say that there is going to be something to take."""
        if not self._told:
            self._told = True
            self.on_ready()

    def close(self, code: CloseCode) -> None:
        """Take nothing more; what waits is still sent, then the client is closed with `code`."""
        if self._closing is not None:
            return
        self._told = True
        # First: a session that stands together with others takes the events of this turn along before it closes.
        self.on_ready()
        if self._closing is None:
            self._closing = code

    def take(self) -> list[bytes]:
        """The next messages and latest frames, about `CHUNK_BYTES` of them; empty where none waits."""
        if self._replays or self._message_bytes + self._latest_bytes > CHUNK_BYTES:
            return self._take_some()
        return self.take_all()

    def take_all(self) -> list[bytes]:
        """All messages and latest frames, where there was no replay."""
        frames = list(self._texts.values())
        self._texts.clear()
        self._message_bytes = self._latest_bytes = 0
        self._told = False
        return frames

    def take_preview(self) -> bytes | None:
        """The oldest preview; None while anything else waits, or once nothing more may follow."""
        self._told = False
        if self._texts or self._closing is not None or not self._previews:
            return None
        job_id = next(iter(self._previews))
        frame = self._previews[job_id]
        self.drop_preview(job_id)
        return frame

    def clear(self) -> None:
        """Forget all that waits."""
        self._texts.clear()
        self._previews.clear()
        self._replays.clear()
        self._message_bytes = self._latest_bytes = self._preview_bytes = 0

    def _take_some(self) -> list[bytes]:
        frames: list[bytes] = []
        size = 0
        while self._texts and size < CHUNK_BYTES:
            frames.append(self._take_one())
            size += len(frames[-1])
        self._told = False
        return frames

    def _take_one(self) -> bytes:
        key = next(iter(self._texts))
        replay = self._replays.get(key)
        if replay is not None:
            frame = replay.popleft()
            if not replay:
                del self._texts[key], self._replays[key]
            return frame
        frame = self._texts.pop(key)
        if isinstance(key, str):
            self._latest_bytes -= len(frame) + SLOT_BYTES
        else:
            self._message_bytes -= len(frame) + SLOT_BYTES
        return frame

    def _drop_oldest_before(self, newest: str) -> bool:
        oldest = next((key for key in self._texts if isinstance(key, str) and key not in LASTING), newest)
        if oldest == newest:
            return False
        self.drop_latest(oldest)
        return True

    def _makes_room(self, size: int) -> bool:
        """Whether the client takes enough at once; a frame larger than the bound may wait alone."""
        self.on_full()
        self.wake()
        return not self._message_bytes or self._message_bytes + size <= self._max_bytes

    def _overflow(self) -> None:
        self.clear()
        self.close(CLOSE_SLOW_CLIENT)


def _nobody() -> None:
    """Nobody takes anything yet."""
