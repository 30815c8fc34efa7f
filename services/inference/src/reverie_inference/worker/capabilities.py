"""What a worker can do, as far as its models are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from reverie_inference.modes.catalogue import Catalogue
from reverie_protocol.errors import mode_not_found
from reverie_protocol.jobs import ModeInfo, ResidentModel, Vram
from reverie_protocol.sizes import SUPERRES_SCALE


def no_vram() -> Vram:
    """The memory of a machine without an accelerator."""
    return Vram()


class Capabilities(msgspec.Struct, frozen=True):
    """The modes of one engine as other services see them.

    `mode` is that of jobs that name none; `unavailable` says why a mode cannot be served; `slots` is how many jobs
    are in work at once; `superres_scale` what a pass enlarges by; `vram` measures the accelerator's memory now.
    """

    mode: str
    modes: dict[str, ModeInfo]
    device: str
    schedulers: tuple[str, ...]
    superres: bool
    slots: int
    default_mode: str = ""
    superres_scale: int = SUPERRES_SCALE
    unavailable: dict[str, str] = {}
    models: tuple[ResidentModel, ...] = ()
    vram: Callable[[], Vram] = no_vram


class Offer(Protocol):
    """What an engine offers, and how that is changed; used in the engine's thread alone."""

    def capabilities(self) -> Capabilities:
        """As they are now."""

    def switch(self, mode: str) -> None:
        """Make this the mode of jobs that name none, loaded; ReverieError, and nothing has changed."""

    def use(self, catalogue: Catalogue) -> None:
        """Offer these modes from now on."""

    def unload(self) -> None:
        """Give up models that are not used now and not pinned."""


class FixedOffer:
    """The offer of an engine that has one mode and always will."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities

    def capabilities(self) -> Capabilities:
        """See `Offer.capabilities`."""
        return self._capabilities

    def switch(self, mode: str) -> None:
        """See `Offer.switch`."""
        if mode != self._capabilities.mode:
            raise mode_not_found(mode, [self._capabilities.mode])

    def use(self, catalogue: Catalogue) -> None:
        """Nothing: the mode is fixed."""

    def unload(self) -> None:
        """Nothing: there is no model to give up."""
