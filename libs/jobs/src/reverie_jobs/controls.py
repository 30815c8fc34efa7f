"""Pause, resume and drain: what the operator's one record allows, and the writes that change it."""

from __future__ import annotations

import msgspec

from reverie_jobs.mirror import Mirror
from reverie_protocol.controls import LANE_NAMES, Gate, QueueControl, QueueControlPatch
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import Lane
from reverie_protocol.subjects import CONTROLS_BUCKET, QUEUE_CONTROL_KEY
from reverie_runtime.bus.port import Bucket, BucketConfig, BusUnavailable, RevisionConflict, WriteUncertain

CONTROLS = BucketConfig(name=CONTROLS_BUCKET, history=16)
OPEN = QueueControl()
MAX_ROUNDS = 16

_decoder = msgspec.json.Decoder(QueueControl)


class ControlMirror(Mirror[QueueControl]):
    """The operator's record; everything is open while there is none."""

    def __init__(self) -> None:
        super().__init__(QueueControl)

    @property
    def control(self) -> QueueControl:
        """What is in force."""
        return self.get(QUEUE_CONTROL_KEY) or OPEN


def closed_lanes(control: QueueControl, *, worker: str) -> frozenset[Lane]:
    """Lanes from which this worker (by name) may claim nothing.

    A draining lane is still worked off; a draining worker takes nothing new.
    """
    own = control.workers.get(worker, Gate())
    if control.queue.paused or own.paused or own.draining:
        return frozenset(Lane)
    return frozenset(lane for lane in Lane if control.lanes.get(lane.name.lower(), Gate()).paused)


def require_open(control: QueueControl, lane: Lane) -> None:
    """Raise ReverieError(draining) if no new job may enter this lane."""
    if control.queue.draining or control.lanes.get(lane.name.lower(), Gate()).draining:
        where = "the queue" if control.queue.draining else f"lane {lane.name.lower()}"
        raise ReverieError(
            ErrorCode.DRAINING, f"{where} is being drained and takes no new jobs", retry_after=30
        )


def patched(control: QueueControl, patch: QueueControlPatch) -> QueueControl:
    """The record after a patch; open gates are not kept.  ReverieError(invalid_field) for an unknown lane."""
    unknown = [name for name in patch.lanes if name not in LANE_NAMES]
    if unknown:
        allowed = f"must be one of {', '.join(LANE_NAMES)}"
        fields = [FieldError(("body", "lanes", name[:64]), allowed, "choice") for name in unknown]
        raise ReverieError(ErrorCode.INVALID_FIELD, f"lanes: {allowed}", fields=fields)
    return QueueControl(
        queue=control.queue if patch.queue is None else patch.queue,
        lanes=_merged(control.lanes, patch.lanes),
        workers=_merged(control.workers, patch.workers),
    )


async def change_controls(bucket: Bucket, patch: QueueControlPatch) -> QueueControl:
    """Apply a patch by compare-and-set; the record that is now in force.

    A patch sets gates to fixed values, so repeating one whose reply was lost is harmless.
    """
    for _ in range(MAX_ROUNDS):
        entry = await bucket.get(QUEUE_CONTROL_KEY)
        held = OPEN if entry is None or entry.value is None else _decoder.decode(entry.value)
        wanted = patched(held, patch)
        content = msgspec.json.encode(wanted)
        try:
            if entry is None or entry.value is None:
                await bucket.create(QUEUE_CONTROL_KEY, content)
            else:
                await bucket.update(QUEUE_CONTROL_KEY, content, entry.revision)
        except (RevisionConflict, WriteUncertain):
            continue
        return wanted
    raise BusUnavailable("the controls could not be written")


def _merged(held: dict[str, Gate], patch: dict[str, Gate]) -> dict[str, Gate]:
    return {name: gate for name, gate in {**held, **patch}.items() if gate != Gate()}
