"""Whose a frame without a prompt id is: certain only while one prompt is known to run.

ComfyUI runs one prompt at a time, so the prompt that was named last runs until its end is said.  Not named are
previews of type 1, texts, and `executing` after a reconnect.  They may also belong to somebody else's prompt that
was sent without a client id: then its `progress`, which names it, came before.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from reverie_comfy_bridge.wire.frames import (
    Executing,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionSuccess,
    FeatureFlags,
    Frame,
    PromptFrame,
    Status,
)
from reverie_comfy_bridge.wire.queue import Queue

_REMEMBERED_ENDS: Final = 64


class Attribution:
    """What one socket has said about which prompt runs.

    Frames go through `attribute` in the order of their arrival, before they go to any `PromptRun`.
    """

    def __init__(self) -> None:
        self._running = ""
        #: A look at the queue may be older than these ends.
        self._over: deque[str] = deque(maxlen=_REMEMBERED_ENDS)

    def opened(self) -> None:
        """A new socket: what the old one said counts no longer."""
        self._running = ""

    def looked(self, queue: Queue) -> None:
        """`/queue` says what runs; more than one would be ambiguous."""
        running = [prompt.prompt_id for prompt in queue.running]
        if not self._running and len(running) == 1 and running[0] not in self._over:
            self._running = running[0]

    def attribute(self, frame: Frame) -> Frame | None:
        """The frame with a prompt id if it is about a prompt; None if it is about one that is not certain."""
        if isinstance(frame, Status | FeatureFlags):
            return frame
        if not frame.prompt_id:
            return msgspec.structs.replace(frame, prompt_id=self._running) if self._running else None
        self._note(frame)
        return frame

    def _note(self, frame: PromptFrame) -> None:
        if not _is_end(frame):
            self._running = frame.prompt_id
            return
        self._over.append(frame.prompt_id)
        if self._running == frame.prompt_id:
            self._running = ""


def _is_end(frame: PromptFrame) -> bool:
    if isinstance(frame, Executing):
        return frame.node is None
    return isinstance(frame, ExecutionSuccess | ExecutionError | ExecutionInterrupted)
