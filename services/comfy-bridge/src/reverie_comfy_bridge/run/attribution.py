"""Whose a frame without a prompt id is: certain only while one prompt is known to run."""

from __future__ import annotations

from reverie_comfy_bridge.wire.frames import Frame
from reverie_comfy_bridge.wire.queue import Queue


class Attribution:
    """What one socket has said about which prompt runs; ComfyUI runs one at a time.

    Frames go through `attribute` in the order of their arrival, before they go to any `PromptRun`.
    """

    def opened(self) -> None:
        """A new socket: what the old one said counts no longer."""
        raise NotImplementedError

    def looked(self, queue: Queue) -> None:
        """`/queue` says what runs."""
        raise NotImplementedError

    def attribute(self, frame: Frame) -> Frame | None:
        """The frame with a prompt id if it is about a prompt; None if it is about one that is not certain."""
        raise NotImplementedError
