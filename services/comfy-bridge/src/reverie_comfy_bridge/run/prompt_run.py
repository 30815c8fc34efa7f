"""One prompt inside one ComfyUI: frames and answers go in, events come out.  No clock, no network, no await.

Frames are hints: they move the progress and ask for looks, and never end a prompt.  Its end is a refusal at the
POST, an entry in the history, or twice in a row neither queue nor history.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, auto
from typing import Final

import msgspec

from reverie_comfy_bridge.run.ending import Ending
from reverie_comfy_bridge.run.events import (
    EndReason,
    Event,
    LookNow,
    LookReason,
    Outcome,
    RunAgain,
    Started,
    Taken,
)
from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.hearing import Hearing
from reverie_comfy_bridge.run.weights import Weights
from reverie_comfy_bridge.wire.answers import Accepted, Denied, PostAnswer, Refused
from reverie_comfy_bridge.wire.frames import FeatureFlags, Frame, Picture, PromptFrame, Status
from reverie_comfy_bridge.wire.outputs import OutputFile
from reverie_comfy_bridge.wire.queue import History, HistoryEntry, Mark, Queue, QueuedPrompt
from reverie_protocol.jobs import ComfyNodeError, ComfyRun

#: Frames kept while it is not known under which id an older ComfyUI takes the prompt.
MAX_EARLY_FRAMES: Final = 256
#: After a POST without a clear answer its handling may still be on the way in ComfyUI.
UNCERTAIN_PAUSE_S: Final = 1.0
#: The history can be faster than the socket by a stall of ComfyUI's event loop.
LATE_PICTURES_S: Final = 2.0


class Look(msgspec.Struct, frozen=True):
    """One look: `/queue` was asked first, at `began` (monotonic), then `/history`; None: no answer, no evidence."""

    began: float
    queue: Queue | None
    history: History | None


class _Stage(Enum):
    UNSENT = auto()
    POSTING = auto()
    UNCERTAIN = auto()
    TAKEN = auto()
    ENDED = auto()


class PromptRun:
    """The life of one prompt.  Times are monotonic seconds of the caller's clock.

    `mark` is what stands in the prompt's `extra_data` under `MARK_KEY`, unique to this prompt; it finds the prompt
    where ComfyUI did not take our id.  To take over a prompt that an earlier attempt sent, give its looks without
    any POST.
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
        self._instance = instance
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._mark = mark
        self._graph = graph
        self._stage = _Stage.UNSENT
        self._hearing = Hearing(graph, weights)
        #: Of the history, while the socket may still bring pictures.
        self._ending: Ending | None = None
        self._ending_at = 0.0
        self._early: list[tuple[PromptFrame, float]] = []
        self._node_errors: tuple[ComfyNodeError, ...] = ()
        self._started = False
        self._cancelling = False
        self._remaining: int | None = None
        self._absences = 0
        #: A look that began before cannot show that the prompt is gone.
        self._evident_from = 0.0
        self._now = 0.0

    @property
    def prompt_id(self) -> str:
        """The id under which ComfyUI has it: ours, or the one that it answered."""
        return self._prompt_id

    @property
    def ended(self) -> bool:
        """`Ended` was said; nothing but `files_gone` says anything after it."""
        return self._stage is _Stage.ENDED

    @property
    def running(self) -> bool:
        """It is known to have left ComfyUI's queue."""
        return self._started

    @property
    def heard_at(self) -> float | None:
        """When a frame about this prompt came last; None if none ever did (is the socket deaf?)."""
        return self._hearing.heard_at

    def snapshot(self) -> ComfyRun:
        """Its nodes as they were at the last input."""
        return self._hearing.progress.snapshot(self._instance, self._prompt_id, self._client_id, self._now)

    def posting(self, now: float) -> list[Event]:
        """The POST is about to be sent: until its answer, absence from the queue means nothing."""
        self._now = now
        if self._stage is _Stage.UNSENT:
            self._stage = _Stage.POSTING
        return []

    def answered(self, answer: PostAnswer, now: float) -> list[Event]:
        """The POST was answered, or (`Uncertain`) was not."""
        self._now = now
        if isinstance(answer, Accepted) and not self.ended:
            return self._accepted(answer, now)
        if self._stage is not _Stage.POSTING:
            return []  # a look or a frame has shown that it is there
        self._evident_from = now
        match answer:
            case Refused():
                message = f"{answer.message} {answer.details}".strip()
                self._node_errors = answer.node_errors
                return self._end(Ending(Outcome.REFUSED, EndReason.VALIDATION, message), now)
            case Denied():
                message = f"ComfyUI answered {answer.status} to the prompt."
                return self._end(Ending(Outcome.LOST, EndReason.DENIED, message), now)
            case _:
                self._stage = _Stage.UNCERTAIN
                return [LookNow(LookReason.UNCERTAIN)]

    def _accepted(self, answer: Accepted, now: float) -> list[Event]:
        news = answer.node_errors != self._node_errors
        self._evident_from = now
        self._node_errors = answer.node_errors
        if self._stage is _Stage.TAKEN:
            return [Taken(self._prompt_id, answer.node_errors)] if news else []
        return self._take(answer.prompt_id)

    def _take(self, prompt_id: str) -> list[Event]:
        """ComfyUI has it, under this id."""
        if self._stage in (_Stage.TAKEN, _Stage.ENDED):
            return []
        self._stage = _Stage.TAKEN
        self._prompt_id = prompt_id
        events: list[Event] = [Taken(prompt_id, self._node_errors)]
        early, self._early = self._early, []
        for frame, at in early:
            events.extend(self._listen(frame, at))
        return events

    def heard(self, frame: Frame, now: float) -> list[Event]:
        """A frame came, through `Attribution`; those of other prompts change nothing."""
        self._now = max(self._now, now)
        if isinstance(frame, FeatureFlags):
            return []
        if isinstance(frame, Status):
            return self._queue_changed(frame)
        if frame.prompt_id == self._prompt_id:
            return [*self._take(frame.prompt_id), *self._listen(frame, now)]
        if self._stage in (_Stage.POSTING, _Stage.UNCERTAIN):
            self._keep(frame, now)
        return []

    def _keep(self, frame: PromptFrame, now: float) -> None:
        """It may be about this prompt, under an id that is not known yet; previews are not worth their memory."""
        if len(self._early) < MAX_EARLY_FRAMES and (not isinstance(frame, Picture) or self._hearing.sends):
            self._early.append((frame, now))

    def _queue_changed(self, status: Status) -> list[Event]:
        before, self._remaining = self._remaining, status.queue_remaining
        shrank = before is None or status.queue_remaining is None or status.queue_remaining < before
        due = shrank and self._stage is _Stage.TAKEN
        return [LookNow(LookReason.QUEUE_SHRANK)] if due else []

    def _listen(self, frame: PromptFrame, now: float) -> list[Event]:
        if frame.prompt_id != self._prompt_id or self.ended:
            return []
        events = self._begin()
        events.extend(self._hearing.hear(frame, now, self.snapshot))
        return events + self._end_if_all_came(now)

    def _begin(self) -> list[Event]:
        if self._started:
            return []
        self._started = True
        return [Started()]

    def looked(self, look: Look, now: float) -> list[Event]:
        """A look was done, see `Look`."""
        self._now = max(self._now, now)
        if self.ended:
            return []
        entry = look.history.find(self._prompt_id, self._mark) if look.history else None
        if entry is not None:
            return self._found_ended(entry, now)
        queued = look.queue.find(self._prompt_id, self._mark) if look.queue else None
        if queued is not None and look.queue is not None:
            return self._found_queued(queued, look.queue.runs(queued.prompt_id))
        return self._found_nowhere(look, now) if self._shows_absence(look) else []

    def _shows_absence(self, look: Look) -> bool:
        """Whether both could be read, as far as they may hold our prompt."""
        if look.queue is None or look.history is None or not look.queue.complete:
            return False
        return self._prompt_id not in look.history.unreadable

    def _found_queued(self, queued: QueuedPrompt, runs: bool) -> list[Event]:
        self._absences = 0
        events = self._take(queued.prompt_id)
        self._hearing.progress.expect(queued.outputs)
        return events + (self._begin() if runs else [])

    def _found_nowhere(self, look: Look, now: float) -> list[Event]:
        if self._stage not in (_Stage.TAKEN, _Stage.UNCERTAIN) or look.began < self._evident_from:
            return []
        if self._ending is not None:
            return self._end(self._ending, now)
        self._absences += 1
        if self._absences == 1:
            uncertain = self._stage is _Stage.UNCERTAIN
            self._evident_from = now + (UNCERTAIN_PAUSE_S if uncertain else 0.0)
            return [] if uncertain else [LookNow(LookReason.MISSING)]
        return self._end(self._gone(), now)

    def _gone(self) -> Ending:
        if self._cancelling:
            return Ending(Outcome.INTERRUPTED, EndReason.REMOVED, "It was taken out of ComfyUI's queue.")
        if self._stage is _Stage.UNCERTAIN:
            return Ending(Outcome.LOST, EndReason.NEVER_QUEUED, "ComfyUI never took the prompt.")
        return Ending(Outcome.LOST, EndReason.VANISHED, "ComfyUI has lost the prompt.")

    def _found_ended(self, entry: HistoryEntry, now: float) -> list[Event]:
        events = self._take(entry.prompt_id)
        self._hearing.progress.expect(entry.prompt.outputs)
        self._hearing.progress.cache(entry.cached, now)
        ending = self._hearing.ending(entry)
        if self._ending is None:
            self._ending, self._ending_at = ending, now
        late = now - self._ending_at >= LATE_PICTURES_S
        if not late and self._hearing.pictures_may_come(ending):
            return events
        return events + self._end(ending, now)

    def _end_if_all_came(self, now: float) -> list[Event]:
        """The history was faster than the socket's last pictures."""
        if self._ending is None or self._hearing.pictures_may_come(self._ending):
            return []
        return self._end(self._ending, now)

    def _end(self, ending: Ending, now: float) -> list[Event]:
        self._stage = _Stage.ENDED
        self._ending = ending
        return [self._hearing.end(ending, self._node_errors, self.snapshot, now)]

    def cancelling(self, now: float) -> list[Event]:
        """We asked ComfyUI to remove or interrupt it: gone then means removed, not lost."""
        self._now = now
        self._cancelling = True
        return [] if self.ended else [LookNow(LookReason.CANCELLED)]

    def files_gone(self, files: Collection[OutputFile]) -> list[Event]:
        """`/view` has these outputs no longer, as happens with cached runs and with `temp` after a restart."""
        nodes = {self._graph.fold(file.node): None for file in files}
        return [RunAgain(tuple(nodes), tuple(files))] if nodes else []
