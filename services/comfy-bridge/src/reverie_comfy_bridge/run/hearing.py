"""What the frames about one prompt say: progress, pictures, texts, and hints that a look is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from reverie_comfy_bridge.run.ending import Ending
from reverie_comfy_bridge.run.events import (
    Ended,
    EndReason,
    Event,
    LookNow,
    LookReason,
    Outcome,
    PreviewShown,
    Progressed,
    TextSent,
)
from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.pictures import SentPictures
from reverie_comfy_bridge.run.progress import RunProgress
from reverie_comfy_bridge.run.weights import Weights
from reverie_comfy_bridge.wire.frames import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionSuccess,
    NodeText,
    Picture,
    Progress,
    ProgressState,
    PromptFrame,
)
from reverie_comfy_bridge.wire.queue import HistoryEntry, HistoryStatus
from reverie_protocol.jobs import ComfyNodeError, ComfyRun

Snapshot = Callable[[], ComfyRun]

MAX_MESSAGE_CHARS: Final = 500

_OUTCOMES: Final = {
    HistoryStatus.SUCCESS: Outcome.SUCCESS,
    HistoryStatus.ERROR: Outcome.FAILED,
    HistoryStatus.INTERRUPTED: Outcome.INTERRUPTED,
}
_MESSAGES: Final = {
    Outcome.FAILED: "ComfyUI reports an error without saying which.",
    Outcome.INTERRUPTED: "It was interrupted.",
}


class Hearing:
    """All that frames can change about one prompt; its end is not among it."""

    def __init__(self, graph: Graph, weights: Weights | None) -> None:
        self._graph = graph
        self.progress = RunProgress(graph, weights)
        self._pictures = SentPictures(graph)
        self._told: object = None
        self.heard_at: float | None = None
        #: Counts only where the history does not say how the prompt ended.
        self._said: ExecutionError | ExecutionInterrupted | None = None
        #: The end was said, after which nothing comes about this prompt.
        self._over = False

    @property
    def sends(self) -> bool:
        """Whether some of its final pictures go over the socket."""
        return bool(self._pictures.nodes)

    def hear(self, frame: PromptFrame, now: float, snapshot: Snapshot) -> list[Event]:
        """What follows from one frame of this prompt."""
        self.heard_at = now
        match frame:
            case Picture():
                return self._picture(frame)
            case NodeText():
                return [TextSent(self.progress.fold(frame.node), frame.text)]
            case _:
                self._advance(frame, now)
                return [*self._news(snapshot), *self._hints(frame)]

    def _advance(self, frame: PromptFrame, now: float) -> None:
        match frame:
            case ExecutionCached():
                self.progress.cache(frame.nodes, now)
            case ProgressState():
                self.progress.take_states(frame.nodes, now)
                for node in frame.nodes:
                    self._pictures.expect(node.node, node.maximum)
            case Progress():
                self._advance_one(frame, now)
            case Executing(node=str() as node):
                self.progress.begin(node, now, frame.display_node)
            case Executed():
                self.progress.produce(frame.node, now, frame.display_node)
            case ExecutionError():
                self.progress.fail(frame.node, now)
            case _:
                pass

    def _advance_one(self, frame: Progress, now: float) -> None:
        """Before 2024 `progress` did not name the node: it is the one that runs."""
        node = frame.node or next(iter(self.progress.current), "")
        if node:
            self.progress.advance(node, frame.value, frame.maximum, now)
            self._pictures.expect(node, frame.maximum)

    def _news(self, snapshot: Snapshot) -> list[Event]:
        """The progress, if it is another than was told last."""
        standing = self.progress.standing
        if standing == self._told:
            return []
        self._told = standing
        node = next(iter(self.progress.current), "")
        step, steps = self.progress.step_of(node)
        title = self._graph.title_of(node) if node else ""
        return [Progressed(self.progress.fraction, snapshot(), node, title, step, steps)]

    def _hints(self, frame: PromptFrame) -> list[Event]:
        match frame:
            case Executing(node=None):
                self._over = True
                return [LookNow(LookReason.ENDED)]
            case ExecutionSuccess():
                return [LookNow(LookReason.SUCCEEDED)]
            case ExecutionError():
                self._said = frame
                return [LookNow(LookReason.FAILED)]
            case ExecutionInterrupted():
                self._said = frame
                return [LookNow(LookReason.INTERRUPTED)]
            case _:
                return []

    def _picture(self, frame: Picture) -> list[Event]:
        current = self.progress.current
        node = self.progress.fold(frame.node, frame.display_node) if frame.node else ""
        if not node and len(current) == 1:
            node = current[0]
        if node not in self._pictures.nodes:
            return [PreviewShown(frame.image, frame.media_type, node)]
        step, _ = self.progress.step_of(node)
        sent = self._pictures.take(node, frame.image, frame.media_type, step)
        return [] if sent is None else [sent]

    def pictures_may_come(self, ending: Ending) -> bool:
        """Whether the socket may still bring pictures of a prompt that is known to have succeeded."""
        return ending.outcome is Outcome.SUCCESS and not self._over and bool(self._missing(ending))

    def _missing(self, ending: Ending) -> tuple[str, ...]:
        return self._pictures.missing(self.progress.needed - frozenset(ending.cached))

    def ending(self, entry: HistoryEntry) -> Ending:
        """How the prompt ended, by its history."""
        outcome = _OUTCOMES.get(entry.status) or self._said_outcome()
        error = entry.error if outcome is Outcome.FAILED else None
        if error is None and outcome is Outcome.FAILED and isinstance(self._said, ExecutionError):
            error = _error_said(self._said)
        named = () if error is None else (self._named(error),)
        message = f"{_title(named[0])}: {_first_line(named[0])}" if named else _MESSAGES.get(outcome, "")
        return Ending(
            outcome=outcome,
            reason=EndReason.HISTORY,
            message=message,
            outputs=entry.outputs,
            node_errors=named,
            seconds=entry.seconds,
            cached=entry.cached,
        )

    def _said_outcome(self) -> Outcome:
        match self._said:
            case ExecutionError():
                return Outcome.FAILED
            case ExecutionInterrupted():
                return Outcome.INTERRUPTED
            case None:
                return Outcome.SUCCESS

    def _named(self, error: ComfyNodeError) -> ComfyNodeError:
        """The error at the node that a person sees, with its title."""
        node = self.progress.fold(error.node)
        known = self._graph.nodes.get(node)
        title = known.title if known else ""
        return msgspec.structs.replace(error, node=node, title=title)

    def end(
        self, ending: Ending, dropped: tuple[ComfyNodeError, ...], snapshot: Snapshot, now: float
    ) -> Ended:
        """The end; `dropped` are errors of outputs that ComfyUI left out when it took the prompt."""
        self._settle(ending, now)
        return Ended(
            outcome=ending.outcome,
            reason=ending.reason,
            message=ending.message,
            outputs=ending.outputs,
            node_errors=ending.node_errors + dropped,
            run=snapshot(),
            fraction=self.progress.fraction,
            seconds=ending.seconds,
            cached=ending.cached,
            missing=self._missing(ending) if ending.outcome is Outcome.SUCCESS else (),
        )

    def _settle(self, ending: Ending, now: float) -> None:
        if ending.outcome is Outcome.SUCCESS:
            self.progress.succeed(now)
            return
        for error in ending.node_errors:
            self.progress.fail(error.node, now)
        self.progress.stop(now)


def _error_said(frame: ExecutionError) -> ComfyNodeError:
    kind = frame.exception_type or "execution_error"
    return ComfyNodeError(frame.node, kind, frame.message or kind, class_type=frame.class_type)


def _first_line(error: ComfyNodeError) -> str:
    return error.message.splitlines()[0][:MAX_MESSAGE_CHARS]


def _title(error: ComfyNodeError) -> str:
    return error.title or error.class_type or f"node {error.node}"
