"""Pausing and draining: writes the operator's one record, and answers when it is in force here."""

from __future__ import annotations

import structlog

from reverie_gateway.reach import reachable, shown
from reverie_jobs.controls import ControlMirror, change_controls
from reverie_protocol.controls import QueueControl, QueueControlPatch
from reverie_runtime.bus.port import Bucket, Bus

log = structlog.get_logger(__name__)


class Gates:
    """The gates of the queue, its lanes and its workers."""

    def __init__(self, bus: Bus, bucket: Bucket, controls: ControlMirror) -> None:
        self._bus = bus
        self._bucket = bucket
        self._controls = controls

    async def change(self, asked: QueueControlPatch) -> QueueControl:
        """Set gates; the record that is in force.  `invalid_field` for a lane that there is not."""
        async with reachable(self._bus):
            control = await change_controls(self._bucket, asked)
        log.info(
            "gates changed",
            queue=control.queue,
            lanes=control.lanes,
            workers=control.workers,
        )
        await shown(self._controls, lambda: self._controls.control == control)
        return control
