"""Is an instance well?  Judged from what was sent, heard and seen, at the caller's monotonic times."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from reverie_comfy_bridge.instance.findings import Finding, Limits, Remedy
from reverie_comfy_bridge.instance.reasons import Reason
from reverie_comfy_bridge.instance.socket_watch import SocketWatch
from reverie_comfy_bridge.instance.worker_watch import WorkerWatch
from reverie_comfy_bridge.wire.frames import Frame
from reverie_comfy_bridge.wire.queue import Queue

__all__ = ["Finding", "Health", "Limits", "Reason", "Remedy"]


#: What was said of one socket is not said of the next.
OF_ONE_SOCKET: Final = frozenset({Reason.DEAF_SOCKET, Reason.HALF_OPEN, Reason.STALLED})


class Health:
    """One instance's.  Every method may be called at any time; `check` says each finding once until it is over."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._socket = SocketWatch(limits)
        self._worker = WorkerWatch(limits)
        self._said: frozenset[tuple[Reason, str]] = frozenset()

    @property
    def unhealthy(self) -> Finding | None:
        """Why it should get no work; None if it may."""
        return self._worker.dead

    def opened(self, now: float) -> None:
        """A socket was opened (with a client id of its own)."""
        self._socket.opened(now)
        self._worker.opened(now)
        self._said = frozenset(said for said in self._said if said[0] not in OF_ONE_SOCKET)

    def closed(self, now: float) -> None:
        """The socket is closed."""
        self._socket.closed()

    def pinged(self, now: float) -> None:
        """A ping was sent."""
        self._socket.pinged(now)

    def ponged(self, now: float) -> None:
        """A pong came."""
        self._socket.ponged()

    def heard(self, frame: Frame, now: float) -> None:
        """A frame came, of whatever prompt."""
        self._socket.heard(frame, now)
        self._worker.heard(frame, now)

    def posted(self, prompt_id: str, number: float | None, now: float) -> None:
        """A POST of ours, with this socket's client id, was accepted; `now` is when it was sent."""
        self._socket.posted(prompt_id, now)
        self._worker.posted(number, now)

    def looked(self, queue: Queue, own: Collection[str], now: float) -> None:
        """`/queue` was read, asked at `now`; `own` are our prompts in it that have this socket's client id."""
        self._socket.looked(queue, now)
        self._worker.looked(queue, own, now)

    def interrupted(self, prompt_id: str, now: float) -> None:
        """An interrupt for our running prompt was sent."""
        self._worker.interrupted(prompt_id, now)

    def ended(self, prompt_id: str, *, heard: bool, now: float) -> None:
        """The history has a prompt of ours; `heard`: frames about it came."""
        if not heard:
            self._socket.ended(prompt_id, now)
        self._worker.ended(prompt_id)

    def vanished(self, prompt_id: str, now: float) -> None:
        """A prompt of ours that nobody removed is in neither queue nor history."""
        self._worker.vanished()

    def check(self, now: float) -> list[Finding]:
        """What is wrong now and was not said yet."""
        found = [*self._socket.check(now), *self._worker.check(now, self._socket.opened_at)]
        said, self._said = self._said, frozenset((finding.reason, finding.prompt_id) for finding in found)
        return [finding for finding in found if (finding.reason, finding.prompt_id) not in said]
