"""Does a socket still hear?  Open and answering pings it may be deaf, or the line behind it dead.

ComfyUI tells every socket of each change of its queue, so a `status` must follow our own POST, and must have come
where two looks see different queues.  It does not if the socket was unregistered behind our back (another one had
our client id), or if another client that does not read holds up the events of all: then a new socket is as silent
as the old one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from reverie_comfy_bridge.instance.findings import Finding, Limits, Remedy
from reverie_comfy_bridge.instance.reasons import Reason
from reverie_comfy_bridge.wire.frames import FeatureFlags, Frame, Status
from reverie_comfy_bridge.wire.queue import Queue

#: How many prompts are remembered: those that were taken out of the queue are never heard of.
MAX_PROMPTS: Final = 64

_Seen = tuple[frozenset[str], frozenset[str]]


def _seen(queue: Queue) -> _Seen:
    return (
        frozenset(prompt.prompt_id for prompt in queue.running),
        frozenset(prompt.prompt_id for prompt in queue.pending),
    )


def _shorten(prompts: dict[str, float | None]) -> None:
    while len(prompts) > MAX_PROMPTS:
        del prompts[next(iter(prompts))]


class SocketWatch:
    """One instance's sockets, one after the other.  Times are monotonic seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._opened_at: float | None = None
        #: Since when a `status` is owed: by opening, by a POST, or by a queue that was seen to have changed.
        self._status_owed_since: float | None = None
        self._ping_sent_at: float | None = None
        #: Prompts of ours posted over this socket's client id of which nothing was heard yet, and when they were
        #: seen to have ended.
        self._unheard: dict[str, float | None] = {}
        self._heard_of: dict[str, float | None] = {}
        #: A socket was given up as deaf, and nothing was broadcast to its successor yet.
        self._stall_suspected_at: float | None = None
        #: What was found about the socket that is open.
        self._given_up: Finding | None = None
        self._looked_at = float("-inf")
        #: The queue as the last look saw it, and when that began.
        self._seen: _Seen | None = None
        self._seen_at = float("-inf")
        self._status_at = float("-inf")

    def opened(self, now: float) -> None:
        """A socket was opened, with a client id that no other socket has."""
        self.closed()
        self._opened_at = now
        self._status_owed_since = now

    def closed(self) -> None:
        """There is no socket."""
        self._opened_at = self._status_owed_since = self._ping_sent_at = self._given_up = None
        self._unheard.clear()

    @property
    def opened_at(self) -> float | None:
        """Since when it is open; None if it is not."""
        return self._opened_at

    def pinged(self, now: float) -> None:
        """A ping was sent."""
        if self._ping_sent_at is None:
            self._ping_sent_at = now

    def ponged(self) -> None:
        """A pong came."""
        self._ping_sent_at = None

    def heard(self, frame: Frame, now: float) -> None:
        """A frame came."""
        self._ping_sent_at = None
        if isinstance(frame, Status):
            self._hear_status(frame, now)
        elif not isinstance(frame, FeatureFlags):
            self._stall_suspected_at = None
            self._heard_of[frame.prompt_id] = None
            _shorten(self._heard_of)
            self._unheard.pop(frame.prompt_id, None)

    def _hear_status(self, status: Status, now: float) -> None:
        self._status_at = now
        if self._status_owed_since is not None and now >= self._status_owed_since:
            self._status_owed_since = None
        if not status.sid:
            self._stall_suspected_at = None

    def posted(self, prompt_id: str, now: float) -> None:
        """A POST of ours, sent now with this client id, was accepted; its `status` may be heard already."""
        if self._opened_at is None or now < self._opened_at:
            return
        if prompt_id not in self._heard_of:
            self._unheard[prompt_id] = None
            _shorten(self._unheard)
        if self._status_at < now:
            self._owe_status(now)

    def _owe_status(self, now: float) -> None:
        if self._status_owed_since is None:
            self._status_owed_since = now

    def looked(self, queue: Queue, now: float) -> None:
        """ComfyUI answered a look that began now: its event loop is alive, and its queue may have changed."""
        self._looked_at = max(self._looked_at, now)
        if self._opened_at is None:
            return
        before, self._seen = self._seen, _seen(queue)
        if before not in (None, self._seen) and self._status_at < self._seen_at:
            self._owe_status(now)
        self._seen_at = now

    def ended(self, prompt_id: str, now: float) -> None:
        """The history has this prompt of ours."""
        if prompt_id in self._unheard:
            self._unheard[prompt_id] = now

    def check(self, now: float) -> Iterator[Finding]:
        """What is wrong with the socket now."""
        if self._opened_at is None:
            return
        if self._ping_sent_at is not None and now - self._ping_sent_at > self._limits.pong_s:
            yield Finding(Reason.HALF_OPEN, Remedy.REOPEN, "The socket does not answer pings.")
        elif (silence := self._silence(now)) is not None:
            yield self._judge(silence, now)

    def _silence(self, now: float) -> str | None:
        """What was owed and did not come, while ComfyUI answers over HTTP."""
        owed = self._status_owed_since
        if owed is not None and now - owed > self._limits.status_s:
            if owed == self._opened_at:
                return "ComfyUI has not greeted this socket."
            if self._looked_at > owed:
                return "ComfyUI changed its queue and did not tell this socket."
        for ended_at in self._unheard.values():
            if ended_at is not None and now - ended_at > self._limits.status_s:
                return "A prompt of ours ran and nothing of it came over the socket."
        return None

    def _judge(self, silence: str, now: float) -> Finding:
        if self._given_up is not None:
            return self._given_up
        suspected_at = self._stall_suspected_at
        if suspected_at is not None and now - suspected_at < self._limits.stalled_s:
            return Finding(
                Reason.STALLED, Remedy.POLL, "A new socket is as silent: ComfyUI's events are held up."
            )
        self._stall_suspected_at = now
        self._given_up = Finding(Reason.DEAF_SOCKET, Remedy.REOPEN, silence)
        return self._given_up
