"""`PromptRun` against a small model of ComfyUI: queue, worker, history, restarts, strangers, a line that loses."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reverie_comfy_bridge.run.events import Ended, EndReason, Event, Outcome, Progressed
from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.prompt_run import UNCERTAIN_PAUSE_S, Look, PromptRun
from reverie_comfy_bridge.wire.answers import Accepted, Denied, PostAnswer, Refused, Uncertain
from reverie_comfy_bridge.wire.frames import (
    Executing,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Frame,
    Progress,
    Status,
)
from reverie_comfy_bridge.wire.outputs import NodeOutputs, OutputFile
from reverie_comfy_bridge.wire.queue import History, HistoryEntry, HistoryStatus, Queue, QueuedPrompt

OURS = "11111111-1111-5111-8111-111111111111"
THEIRS = "22222222-2222-4222-8222-222222222222"
MARK = {"job": "j", "attempt": 1}
GRAPH = Graph.read(
    {
        "1": {"class_type": "KSampler", "inputs": {"steps": 4}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
)
OUTPUTS = NodeOutputs((OutputFile("2", "images", "a.png"),))


class Comfy(msgspec.Struct):
    """The server: one worker, a queue, a history in memory only, and whatever the socket has still to bring."""

    assigns_ids: bool
    pending: list[QueuedPrompt] = []
    running: QueuedPrompt | None = None
    history: dict[str, HistoryEntry] = {}
    wire: list[Frame] = []
    count: int = 0

    def take(self, prompt_id: str, mark: dict[str, object] | None) -> Accepted:
        given = f"assigned-{self.count}" if self.assigns_ids and mark else prompt_id
        self.count += 1
        self.pending.append(QueuedPrompt(given, float(self.count), "c", mark, ("2",)))
        self.tell_length()
        return Accepted(given, float(self.count))

    def tell_length(self) -> None:
        self.wire.append(Status(len(self.pending) + (self.running is not None)))

    def start(self) -> None:
        self.running = self.pending.pop(0)
        self.wire += [ExecutionStart(self.running.prompt_id), Executing(self.running.prompt_id, "1")]

    def step(self, value: int) -> None:
        assert self.running is not None
        self.wire.append(Progress(self.running.prompt_id, "1", float(value), 4.0))

    def finish(self, status: HistoryStatus) -> None:
        assert self.running is not None
        prompt_id = self.running.prompt_id
        last = {
            HistoryStatus.SUCCESS: ExecutionSuccess(prompt_id),
            HistoryStatus.ERROR: ExecutionError(prompt_id, "1"),
            HistoryStatus.INTERRUPTED: ExecutionInterrupted(prompt_id, "1"),
        }[status]
        outputs = OUTPUTS if status is HistoryStatus.SUCCESS else NodeOutputs()
        self.history[prompt_id] = HistoryEntry(prompt_id, status, outputs, prompt=self.running)
        self.running = None
        self.wire += [last, Executing(prompt_id, None)]
        self.tell_length()

    def restart(self) -> None:
        self.pending, self.running, self.history, self.wire, self.count = [], None, {}, [], 0

    @property
    def queue(self) -> Queue:
        return Queue((self.running,) if self.running else (), tuple(self.pending))

    def has(self) -> bool:
        """Whether our prompt is anywhere in it."""
        queued = self.queue.find(OURS, MARK)
        return queued is not None or History(tuple(self.history.values())).find(OURS, MARK) is not None


class PromptLife(RuleBasedStateMachine):
    @initialize(assigns_ids=st.booleans())
    def begin(self, assigns_ids: bool) -> None:
        self.now = 100.0
        self.comfy = Comfy(assigns_ids)
        self.run_ = PromptRun(instance="one", prompt_id=OURS, client_id="c", graph=GRAPH, mark=MARK)
        self.posted = False
        self.on_the_way = False
        self.answer: PostAnswer | None = None
        self.answered = False
        self.late_until: float | None = None
        self.ends: list[Ended] = []
        self.fractions: list[float] = []
        self.cancelled = False
        self.refused = False
        self.finished: set[Outcome] = set()
        self.look: tuple[float, Queue] | None = None

    def take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Progressed):
                self.fractions.append(event.fraction)
            if isinstance(event, Ended):
                self.check_end(event)
                self.ends.append(event)

    def check_end(self, ended: Ended) -> None:
        match ended.reason:
            case EndReason.HISTORY:
                assert ended.outcome in self.finished
                assert ended.outputs == (OUTPUTS if ended.outcome is Outcome.SUCCESS else NodeOutputs())
            case EndReason.VALIDATION:
                assert self.refused
            case EndReason.REMOVED:
                assert self.cancelled
                assert not self.comfy.has()
            case EndReason.DENIED:
                assert isinstance(self.answer, Denied)
            case EndReason.VANISHED | EndReason.NEVER_QUEUED:
                assert not self.comfy.has()
                assert not self.on_the_way
        assert (ended.fraction == 1.0) is (ended.outcome is Outcome.SUCCESS)

    # --- our side ---

    @precondition(lambda self: not self.posted)
    @rule()
    def post(self) -> None:
        self.posted = self.on_the_way = True
        self.take(self.run_.posting(self.now))

    @precondition(lambda self: self.answer is not None and not self.answered)
    @rule()
    def answer_arrives(self) -> None:
        assert self.answer is not None
        self.answered = True
        self.take(self.run_.answered(self.answer, self.now))

    @precondition(lambda self: self.posted and not self.answered)
    @rule()
    def answer_is_lost(self) -> None:
        self.answered = True
        self.late_until = self.now + UNCERTAIN_PAUSE_S
        self.take(self.run_.answered(Uncertain(500), self.now))

    @precondition(lambda self: self.look is None)
    @rule()
    def ask_for_the_queue(self) -> None:
        self.look = (self.now, self.comfy.queue)

    @precondition(lambda self: self.look is not None)
    @rule(readable=st.booleans(), of_queue=st.booleans())
    def ask_for_the_history(self, readable: bool, of_queue: bool) -> None:
        assert self.look is not None
        began, queue = self.look
        self.look = None
        history = History(tuple(self.comfy.history.values()))
        seen = Look(began, queue, history)
        if not readable:
            seen = Look(began, None, history) if of_queue else Look(began, queue, None)
        self.take(self.run_.looked(seen, self.now))

    @precondition(lambda self: self.look is None and self.posted)
    @rule(readable=st.booleans(), of_queue=st.booleans())
    def look_at_once(self, readable: bool, of_queue: bool) -> None:
        self.ask_for_the_queue()
        self.ask_for_the_history(readable, of_queue)

    @precondition(lambda self: self.answered and not self.cancelled)
    @rule()
    def cancel(self) -> None:
        self.cancelled = True
        self.take(self.run_.cancelling(self.now))
        prompt = self.comfy.queue.find(OURS, MARK)
        if prompt in self.comfy.pending:
            self.comfy.pending.remove(prompt)
            self.comfy.tell_length()
        elif prompt is not None:
            self.finish(HistoryStatus.INTERRUPTED)

    # --- the line ---

    @precondition(lambda self: self.comfy.wire)
    @rule(data=st.data(), twice=st.booleans())
    def hear(self, data: st.DataObject, twice: bool) -> None:
        at = data.draw(st.integers(0, min(len(self.comfy.wire) - 1, 3)))
        frame = self.comfy.wire[at] if twice else self.comfy.wire.pop(at)
        self.take(self.run_.heard(frame, self.now))

    @precondition(lambda self: self.comfy.wire)
    @rule()
    def lose_what_is_on_the_wire(self) -> None:
        self.comfy.wire.clear()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.4, 1.5, 30.0]))
    def time_goes_by(self, seconds: float) -> None:
        if self.on_the_way and self.late_until is not None and self.now + seconds >= self.late_until:
            self.on_the_way = False
        self.now += seconds

    # --- the server's side ---

    @precondition(lambda self: self.on_the_way)
    @rule(verdict=st.sampled_from(["taken", "taken", "taken", "refused", "denied"]))
    def the_post_comes_in(self, verdict: str) -> None:
        self.on_the_way = False
        if verdict == "taken":
            self.answer = self.comfy.take(OURS, MARK)
        elif verdict == "refused":
            self.refused = True
            self.answer = Refused("prompt_no_outputs", "Prompt has no outputs")
        else:
            self.answer = Denied(403)

    @rule()
    def a_stranger_posts(self) -> None:
        if len(self.comfy.pending) < 3:
            self.comfy.take(f"{THEIRS}{self.comfy.count}", None)

    @precondition(lambda self: self.comfy.running is None and self.comfy.pending)
    @rule()
    def the_next_starts(self) -> None:
        self.comfy.start()

    @precondition(lambda self: self.comfy.running is not None)
    @rule(value=st.integers(0, 5))
    def a_step_is_done(self, value: int) -> None:
        self.comfy.step(value)

    @precondition(lambda self: self.comfy.running is not None)
    @rule(status=st.sampled_from([HistoryStatus.SUCCESS, HistoryStatus.ERROR, HistoryStatus.INTERRUPTED]))
    def it_ends(self, status: HistoryStatus) -> None:
        self.finish(status)

    def finish(self, status: HistoryStatus) -> None:
        assert self.comfy.running is not None
        if self.comfy.running.mark == MARK:
            self.finished.add(
                {"success": Outcome.SUCCESS, "error": Outcome.FAILED, "interrupted": Outcome.INTERRUPTED}[
                    status
                ]
            )
        self.comfy.finish(status)

    @rule()
    def the_server_restarts(self) -> None:
        self.on_the_way = False
        self.comfy.restart()

    @rule()
    def a_stranger_clears_the_history(self) -> None:
        self.comfy.history.clear()

    # --- what holds ---

    @invariant()
    def it_ends_at_most_once(self) -> None:
        assert len(self.ends) <= 1

    @invariant()
    def progress_never_falls_and_is_not_whole_before_the_end(self) -> None:
        assert self.fractions == sorted(self.fractions)
        assert all(0.0 <= fraction < 1.0 for fraction in self.fractions)

    def teardown(self) -> None:
        """Whatever happened: once the server is at rest, a few looks end the prompt."""
        if not hasattr(self, "run_") or not self.posted:
            return
        self.on_the_way = False
        if not self.answered:
            self.take(self.run_.answered(self.answer or Uncertain(), self.now))
        while self.comfy.pending or self.comfy.running:
            if self.comfy.running is None:
                self.comfy.start()
            self.finish(HistoryStatus.SUCCESS)
        for _ in range(3):
            self.now += 5
            self.take(
                self.run_.looked(
                    Look(self.now, self.comfy.queue, History(tuple(self.comfy.history.values()))), self.now
                )
            )
        assert self.run_.ended
        assert len(self.ends) == 1


TestPromptLife = PromptLife.TestCase
TestPromptLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
