"""Pausing and draining: writes the operator's one record, and answers when it is in force here."""

from __future__ import annotations

import msgspec

from reverie_gateway.audit import Auditor
from reverie_gateway.identity import Action, Identity, require_administrator
from reverie_gateway.reach import reachable, shown
from reverie_jobs.controls import ControlMirror, change_controls
from reverie_protocol.controls import QueueControl, QueueControlPatch
from reverie_protocol.errors import ReverieError
from reverie_runtime.bus.port import Bucket, Bus

#: What the audit calls a change of gates.
QUEUE_CONTROL = "queue.control"


class Gates:
    """The gates of the queue, its lanes and its workers."""

    def __init__(self, bus: Bus, bucket: Bucket, controls: ControlMirror, auditor: Auditor) -> None:
        self._bus = bus
        self._bucket = bucket
        self._controls = controls
        self._auditor = auditor

    def require_operator(self, by: Identity) -> None:
        """`forbidden` unless he may open and close gates."""
        try:
            require_administrator(by, Action.CONTROL_QUEUE)
        except ReverieError:
            self._auditor.note(QUEUE_CONTROL, by, allowed=False)
            raise

    async def change(self, asked: QueueControlPatch, *, by: Identity) -> QueueControl:
        """Set gates; the record that is in force.  `invalid_field` for a lane that there is not."""
        self.require_operator(by)
        async with reachable(self._bus):
            control = await change_controls(self._bucket, asked)
        self._auditor.note(QUEUE_CONTROL, by, detail=msgspec.json.encode(asked).decode())
        await shown(self._controls, lambda: self._controls.control == control)
        return control
