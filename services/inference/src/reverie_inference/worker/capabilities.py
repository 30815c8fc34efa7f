"""What a worker can do, known once its model is loaded."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from reverie_protocol.jobs import ModeInfo, Vram


def no_vram() -> Vram:
    """The memory of a machine without an accelerator."""
    return Vram()


class Capabilities(msgspec.Struct, frozen=True):
    """A loaded model as other services see it.

    `slots` is how many jobs its engine takes at once; `vram` measures the accelerator's memory now.
    """

    mode: str
    mode_info: ModeInfo
    device: str
    schedulers: tuple[str, ...]
    superres: bool
    slots: int
    vram: Callable[[], Vram] = no_vram
