"""The table of ComfyUI instances: the bucket `comfy_instances`, its mirror, and writes by compare-and-set.

An administrator writes what is wanted of an instance, the bridge what is: both change the one record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from reverie_jobs.mirror import Mirror
from reverie_protocol.instances import ComfyInstance
from reverie_protocol.subjects import COMFY_INSTANCES_BUCKET
from reverie_runtime.bus.port import Bucket, BucketConfig, BusUnavailable, RevisionConflict, WriteUncertain

COMFY_INSTANCES: Final = BucketConfig(name=COMFY_INSTANCES_BUCKET)
MAX_ROUNDS: Final = 16

Change = Callable[[ComfyInstance | None], ComfyInstance | None]
_decoder = msgspec.json.Decoder(ComfyInstance)


class InstanceMirror(Mirror[ComfyInstance]):
    """The instances there are, by name."""

    def __init__(self) -> None:
        super().__init__(ComfyInstance)

    @property
    def instances(self) -> tuple[ComfyInstance, ...]:
        """All of them, by name."""
        return tuple(sorted(self, key=lambda instance: instance.name))


async def change_instance(bucket: Bucket, name: str, change: Change) -> ComfyInstance | None:
    """Write what `change` makes of the record there is (None: there is none); the record that is in force.

    `change` may be called several times; where it returns None, or the same, nothing is written.
    """
    for _ in range(MAX_ROUNDS):
        entry = await bucket.get(name)
        held = None if entry is None or entry.value is None else _decoder.decode(entry.value)
        wanted = change(held)
        if wanted is None or wanted == held:
            return held
        try:
            if entry is None or entry.value is None:
                await bucket.create(name, msgspec.json.encode(wanted))
            else:
                await bucket.update(name, msgspec.json.encode(wanted), entry.revision)
        except (RevisionConflict, WriteUncertain):
            continue
        return wanted
    raise BusUnavailable("the table of instances could not be written")


async def remove_instance(bucket: Bucket, name: str) -> ComfyInstance | None:
    """Take an instance out of the table; the record that it had, None if there was none."""
    for _ in range(MAX_ROUNDS):
        entry = await bucket.get(name)
        if entry is None or entry.value is None:
            return None
        try:
            await bucket.purge(name, revision=entry.revision)
        except (RevisionConflict, WriteUncertain):
            continue
        return _decoder.decode(entry.value)
    raise BusUnavailable("the table of instances could not be written")
