"""How a prompt ended, before it is told."""

from __future__ import annotations

import msgspec

from reverie_comfy_bridge.run.events import EndReason, Outcome
from reverie_comfy_bridge.wire.outputs import NodeOutputs
from reverie_protocol.jobs import ComfyNodeError


class Ending(msgspec.Struct, frozen=True):
    """The evidence of the end, see `events.Ended`."""

    outcome: Outcome
    reason: EndReason
    message: str = ""
    outputs: NodeOutputs = NodeOutputs()
    node_errors: tuple[ComfyNodeError, ...] = ()
    seconds: float | None = None
    cached: tuple[str, ...] = ()
