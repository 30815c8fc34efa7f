"""What can be found wrong with an instance, and what is to be done about it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from reverie_comfy_bridge.instance.reasons import Reason


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long what may take.

    `status_s`: a `status` after our own POST or after opening.  `pong_s`: the answer to a ping.  `silent_s`: an
    event of our running prompt.  `interrupt_s`: an interrupt takes effect (a node that does not look runs to its
    end).  `idle_looks` within no less than `idle_s`: nothing runs although something waits.  `stalled_s`: until a
    socket that stayed silent although it is new is tried again.
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
