"""Is an instance well?  Judged from what was sent, heard and seen, at the caller's monotonic times."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

import msgspec

from reverie_comfy_bridge.instance.reasons import Reason
from reverie_comfy_bridge.wire.frames import Frame
from reverie_comfy_bridge.wire.queue import Queue


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long what may take.

    `status_s`: a `status` after our own POST or after opening.  `pong_s`: the answer to a ping.  `silent_s`: an
    event of our running prompt.  `interrupt_s`: an interrupt takes effect (a node that does not look runs to its
    end).  `idle_looks` within no less than `idle_s`: nothing runs although something waits.
    """

    status_s: float = 5.0
    pong_s: float = 10.0
    silent_s: float = 600.0
    interrupt_s: float = 120.0
    idle_looks: int = 4
    idle_s: float = 8.0
    stalled_s: float = 30.0


class Remedy(StrEnum):
    """What to do about it.

    `reopen`: close the socket fully, open one with a new client id, finish running prompts by looks.  `poll`:
    only look, more often.  `interrupt`: interrupt the prompt named.  `unhealthy`: give the instance no more work,
    requeue what it has.  `look`: look at all prompts now, read version and classes anew.
    """

    REOPEN = "reopen"
    POLL = "poll"
    INTERRUPT = "interrupt"
    UNHEALTHY = "unhealthy"
    LOOK = "look"


class Finding(msgspec.Struct, frozen=True):
    """Something is wrong: a stable code, what to do, one sentence, and the prompt it is about (if one)."""

    reason: Reason
    remedy: Remedy
    detail: str
    prompt_id: str = ""


class Health:
    """One instance's.  Every method may be called at any time; `check` says each finding once until it is over."""

    def __init__(self, limits: Limits | None = None) -> None:
        raise NotImplementedError

    @property
    def unhealthy(self) -> Finding | None:
        """Why it should get no work; None if it may."""
        raise NotImplementedError

    def opened(self, now: float) -> None:
        """A socket was opened (with a client id of its own)."""
        raise NotImplementedError

    def closed(self, now: float) -> None:
        """The socket is closed."""
        raise NotImplementedError

    def pinged(self, now: float) -> None:
        """A ping was sent."""
        raise NotImplementedError

    def ponged(self, now: float) -> None:
        """A pong came."""
        raise NotImplementedError

    def heard(self, frame: Frame, now: float) -> None:
        """A frame came, of whatever prompt."""
        raise NotImplementedError

    def posted(self, prompt_id: str, number: float | None, now: float) -> None:
        """A POST of ours was accepted; `now` is when it was sent."""
        raise NotImplementedError

    def looked(self, queue: Queue, own: Collection[str], now: float) -> None:
        """`/queue` was read; `own` are the ids of our prompts in it that were sent over this socket's client id."""
        raise NotImplementedError

    def interrupted(self, prompt_id: str, now: float) -> None:
        """An interrupt for our running prompt was sent."""
        raise NotImplementedError

    def ended(self, prompt_id: str, *, heard: bool, now: float) -> None:
        """The history has a prompt of ours; `heard`: frames about it came."""
        raise NotImplementedError

    def vanished(self, prompt_id: str, now: float) -> None:
        """A prompt of ours that nobody removed is in neither queue nor history."""
        raise NotImplementedError

    def check(self, now: float) -> list[Finding]:
        """What is wrong now and was not said yet."""
        raise NotImplementedError
