"""One prompt inside one ComfyUI: frames and answers go in, events come out.  No clock, no network, no await.

Frames are hints: they move the progress and ask for looks, and never end a prompt.  Its end is a refusal at the
POST, an entry in the history, or twice in a row neither queue nor history.
"""

from __future__ import annotations

import msgspec

from reverie_comfy_bridge.run.events import Event
from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.weights import Weights
from reverie_comfy_bridge.wire.answers import PostAnswer
from reverie_comfy_bridge.wire.frames import Frame
from reverie_comfy_bridge.wire.outputs import OutputFile
from reverie_comfy_bridge.wire.queue import History, Mark, Queue
from reverie_protocol.jobs import ComfyRun


class Look(msgspec.Struct, frozen=True):
    """One look: `/queue` was asked first, at `began` (monotonic), then `/history`; None: no answer, no evidence."""

    began: float
    queue: Queue | None
    history: History | None


class PromptRun:
    """The life of one prompt.  Times are monotonic seconds of the caller's clock.

    Made before the POST, or (`posted=False` and no POST) to take over a prompt that an earlier attempt sent.
    """

    def __init__(
        self,
        *,
        instance: str,
        prompt_id: str,
        client_id: str,
        graph: Graph,
        mark: Mark | None = None,
        weights: Weights | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def prompt_id(self) -> str:
        """The id under which ComfyUI has it: ours, or the one that it answered."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """`Ended` was said; nothing but `file_gone` says anything after it."""
        raise NotImplementedError

    @property
    def heard_at(self) -> float | None:
        """When a frame about this prompt came last; None if none ever did (is the socket deaf?)."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """It is known to have left ComfyUI's queue."""
        raise NotImplementedError

    def posting(self, now: float) -> list[Event]:
        """The POST is about to be sent: until its answer, absence from the queue means nothing."""
        raise NotImplementedError

    def answered(self, answer: PostAnswer, now: float) -> list[Event]:
        """The POST was answered, or (`Uncertain`) was not."""
        raise NotImplementedError

    def heard(self, frame: Frame, now: float) -> list[Event]:
        """A frame came, through `Attribution`; those of other prompts change nothing."""
        raise NotImplementedError

    def looked(self, look: Look, now: float) -> list[Event]:
        """A look was done, see `Look`."""
        raise NotImplementedError

    def cancelling(self, now: float) -> list[Event]:
        """We asked ComfyUI to remove or interrupt it: gone then means removed, not lost."""
        raise NotImplementedError

    def file_gone(self, file: OutputFile) -> list[Event]:
        """`/view` does not have an output of it, which is so for old files of cached runs and for wiped `temp`."""
        raise NotImplementedError

    def snapshot(self) -> ComfyRun:
        """Its nodes as they are now."""
        raise NotImplementedError
