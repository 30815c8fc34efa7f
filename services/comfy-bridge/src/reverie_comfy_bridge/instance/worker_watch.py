"""Does ComfyUI still work?  Its HTTP server outlives its worker thread: prompts are taken and never done.

Nothing in its answers says so.  What shows it: a prompt that goes on running after it was interrupted, or a queue
in which something waits and nothing runs.  Only a restart helps, and a restart drops the socket.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from reverie_comfy_bridge.instance.findings import Finding, Limits, Remedy
from reverie_comfy_bridge.instance.reasons import Reason
from reverie_comfy_bridge.wire.frames import FeatureFlags, Frame, Status
from reverie_comfy_bridge.wire.queue import Queue


class WorkerWatch:
    """One instance's worker thread, and whether the process is still the same.  Times are monotonic seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        #: Our running prompts, and when they last gave a sign.
        self._signs: dict[str, float] = {}
        self._interrupted: dict[str, float] = {}
        self._idle: list[float] = []
        self._highest: tuple[float, float] | None = None
        self._restarted: str | None = None
        self._opened_at = float("-inf")
        self._dead: Finding | None = None
        self._dead_since = 0.0

    @property
    def dead(self) -> Finding | None:
        """Why it is taken to be dead; None if it is not."""
        return self._dead

    def opened(self, now: float) -> None:
        """A socket was opened: from now on signs are to be heard."""
        self._opened_at = now

    def heard(self, frame: Frame, now: float) -> None:
        """A frame came: whatever is about a prompt comes from a living worker."""
        if isinstance(frame, Status | FeatureFlags):
            return
        self._dead = None
        self._idle.clear()
        for since in (self._signs, self._interrupted):
            if frame.prompt_id in since:
                since[frame.prompt_id] = now

    def posted(self, number: float | None, sent_at: float) -> None:
        """ComfyUI numbers what it takes, from 0 at each start; of two POSTs at once either may be first."""
        if number is None:
            return
        if self._highest is not None and number <= self._highest[0] and sent_at > self._highest[1]:
            self._restarted = "ComfyUI counts its prompts anew."
            self._highest = None
        if self._highest is None or number > self._highest[0]:
            self._highest = (number, sent_at)

    def vanished(self) -> None:
        """A prompt of ours that nobody removed is in neither queue nor history."""
        self._restarted = "A prompt of ours is gone from queue and history."
        self._highest = None

    def interrupted(self, prompt_id: str, now: float) -> None:
        """A running prompt of ours was interrupted; the first time counts, or its last sign after that."""
        self._interrupted.setdefault(prompt_id, now)

    def ended(self, prompt_id: str) -> None:
        """The history has this prompt."""
        self._interrupted.pop(prompt_id, None)
        self._signs.pop(prompt_id, None)
        self._dead = None

    def looked(self, queue: Queue, own: Collection[str], now: float) -> None:
        """The queue as it was read from now on; `own` of our prompts give signs to this socket."""
        running = {prompt.prompt_id for prompt in queue.running}
        self._signs = {id: self._signs.get(id, now) for id in own if id in running}
        waiting = {prompt.prompt_id for prompt in queue.pending}
        self._interrupted = {
            id: now if id in waiting else at  # an interrupt does not hit what waits
            for id, at in self._interrupted.items()
            if id in running | waiting
        }
        if queue.pending and not queue.running:
            self._idle.append(now)
        else:
            self._idle.clear()
        self._judge(running, now)

    def _judge(self, running: Collection[str], now: float) -> None:
        if self._dead is not None:
            moved_on = bool(running) and self._dead.prompt_id not in running
            if moved_on or self._opened_at > self._dead_since:
                self._dead = None  # unless what follows shows it anew
        for prompt_id, at in self._interrupted.items():
            if prompt_id in running and now - at > self._limits.interrupt_s:
                self._bury("A prompt runs on although it was interrupted.", prompt_id, now)
        if len(self._idle) >= self._limits.idle_looks and now - self._idle[0] >= self._limits.idle_s:
            self._bury("Prompts wait and none runs.", "", now)

    def _bury(self, detail: str, prompt_id: str, now: float) -> None:
        if self._dead is None:
            self._dead_since = now
            self._dead = Finding(Reason.DEAD_WORKER, Remedy.UNHEALTHY, detail, prompt_id)

    def check(self, now: float, opened_at: float | None) -> Iterator[Finding]:
        """What is wrong with it now; without a socket no signs are expected."""
        if self._dead is not None:
            yield self._dead
        if self._restarted is not None:
            yield Finding(Reason.RESTARTED, Remedy.LOOK, self._restarted)
            self._restarted = None
        if opened_at is None:
            return
        for prompt_id, sign_at in self._signs.items():
            if now - max(sign_at, opened_at) > self._limits.silent_s and prompt_id not in self._interrupted:
                detail = "A running prompt has given no sign for long."
                yield Finding(Reason.JOB_SILENT, Remedy.INTERRUPT, detail, prompt_id)
