"""What an operator has closed: one record says which lanes, workers, or the whole queue are paused or draining."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import Lane

WorkerName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="1 to 64 letters, digits, `_` or `-`"),
]


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`paused`: nothing is claimed, submits wait.  `draining`: nothing new is taken, what is there is finished."""

    paused: bool = False
    draining: bool = False


class QueueControl(msgspec.Struct, frozen=True, kw_only=True):
    """Key `queue` of the KV bucket `controls`; lanes by name, workers by name.  What is not listed is open."""

    queue: Gate = Gate()
    lanes: dict[str, Gate] = {}
    workers: dict[str, Gate] = {}


class QueueControlPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `PATCH /v1/queue`: the gates to set; the others stay as they are."""

    queue: Gate | None = None
    lanes: dict[str, Gate] = {}
    workers: dict[WorkerName, Gate] = {}


LANE_NAMES = tuple(lane.name.lower() for lane in Lane)
