"""How far a prompt is: nodes folded to those a person sees, weighed, never going back.

The whole is the weighed mean over the nodes that have to run: those that the asked outputs need, without the
cached ones.  A node with sub-nodes made by expansion counts as the mean of those seen and one more, because nobody
knows how many come.  Frames may come late, twice or never, so a node's fraction only rises, and so does the
whole's; it stays below 1 until the prompt is known to have succeeded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.weights import LITTLE, Weights, weigh
from reverie_comfy_bridge.wire.frames import NodeProgress
from reverie_protocol.jobs import ComfyNode, ComfyNodeState, ComfyRun

ALMOST: Final = 0.999
#: A node may count in what it likes; what is larger than any count of steps is not told as one.
MAX_STEPS_TOLD: Final = 10**12
#: Nodes that the graph does not have are told of too, but not without end.
MAX_UNKNOWN_NODES: Final = 100


class NodeRun:
    """One node that a person sees, since it was first heard of."""

    def __init__(self, began: int, now: float) -> None:
        self.state = ComfyNodeState.RUNNING
        #: Counts the beginnings of all nodes: the latest first among those that run.
        self.began = began
        self.started_at = now
        self.seconds = 0.0
        self.own = 0.0
        self.parts: dict[str, float] = {}
        self.step = 0
        self.steps = 0

    @property
    def fraction(self) -> float:
        """From 0 to 1; 1 also while it still runs, if its own progress is full."""
        if self.state in (ComfyNodeState.FINISHED, ComfyNodeState.CACHED):
            return 1.0
        return max(self.own, sum(self.parts.values()) / (len(self.parts) + 1))

    def finish(self, state: ComfyNodeState, now: float) -> None:
        """It runs no longer."""
        if self.state is ComfyNodeState.RUNNING:
            self.seconds += max(0.0, now - self.started_at)
        self.state = state

    def resume(self, began: int, now: float) -> None:
        """It runs again."""
        self.state, self.began, self.started_at = ComfyNodeState.RUNNING, began, now


class RunProgress:
    """The progress of one prompt.  Times are monotonic seconds."""

    def __init__(self, graph: Graph, weights: Weights | None = None) -> None:
        self._graph = graph
        self._weights = weigh(graph) if weights is None else weights
        self._nodes: dict[str, NodeRun] = {}
        self._folds: dict[str, str] = {}
        self._outputs: frozenset[str] = graph.ends
        self._cached: frozenset[str] = frozenset()
        self._needed = graph.needed_for(self._outputs)
        self._to_run = self._needed
        self._fraction = 0.0
        self._beginnings = 0
        #: `progress_state` says which nodes are finished; older versions leave it to be concluded.
        self._told_states = False

    @property
    def fraction(self) -> float:
        """Of the whole: below 1 until `succeed`."""
        return self._fraction

    @property
    def current(self) -> tuple[str, ...]:
        """The nodes that run, the latest first."""
        running = [(run.began, node) for node, run in self._nodes.items() if _runs(run)]
        return tuple(node for _, node in sorted(running, reverse=True))

    @property
    def needed(self) -> frozenset[str]:
        """The nodes that the asked outputs need, cached ones among them."""
        return self._needed

    @property
    def standing(self) -> object:
        """Equal as long as there is nothing new to tell."""
        states = tuple((node, run.state, run.fraction, run.step) for node, run in self._nodes.items())
        return (self._fraction, states, self.current)

    def step_of(self, node: str) -> tuple[int, int]:
        """A node's own progress, step of steps; (0, 0) if it tells none."""
        run = self._nodes.get(node)
        return (run.step, run.steps) if run else (0, 0)

    def fold(self, node: str, display_node: str = "") -> str:
        """The node that a person sees, for one that expansion may have made."""
        if display_node and display_node != node:
            self._folds[node] = self._graph.fold(display_node)
        return self._folds.get(node) or self._graph.fold(node)

    def expect(self, outputs: Collection[str]) -> None:
        """ComfyUI says which output nodes it makes."""
        if known := frozenset(outputs) & self._graph.nodes.keys():
            self._outputs = known
            self._plan()

    def cache(self, nodes: Iterable[str], now: float) -> None:
        """These nodes need not run."""
        cached = {node for node in nodes if node in self._graph.nodes}
        self._cached |= cached
        for node in cached:
            self._run_of(node, now).state = ComfyNodeState.CACHED
        self._plan()

    def begin(self, node: str, now: float, display_node: str = "") -> None:
        """`executing`: before 0.3.45 whatever ran before has finished with it."""
        shown = self.fold(node, display_node)
        if not self._told_states:
            self._leave_all_but(shown, now)
        run = self._run_of(shown, now)
        if not _runs(run) and not self._told_states:
            run.resume(self._count(), now)
        if shown != node:
            if not self._told_states:
                run.parts = dict.fromkeys(run.parts, 1.0)
            run.parts.setdefault(node, 0.0)
        self._recount()

    def advance(self, node: str, value: float | None, maximum: float | None, now: float) -> None:
        """`progress` of one node."""
        shown = self.fold(node)
        self._take(self._run_of(shown, now), shown, NodeProgress(node, "", value, maximum))
        self._recount()

    def take_states(self, states: Iterable[NodeProgress], now: float) -> None:
        """`progress_state`: all nodes that are no longer pending."""
        self._told_states = True
        for state in states:
            shown = self.fold(state.node, state.display_node)
            run = self._run_of(shown, now)
            self._take(run, shown, state)
            if state.state == "running" and run.state is ComfyNodeState.CACHED:
                run.resume(self._count(), now)
            if state.node == shown and state.state == "finished":
                run.finish(_finished(run), now)
            elif state.node == shown and state.state == "error":
                run.finish(ComfyNodeState.FAILED, now)
        self._recount()

    def produce(self, node: str, now: float, display_node: str = "") -> None:
        """`executed`: it has given its outputs; before 0.3.45 that is its end."""
        if not self._told_states and (run := self._nodes.get(self.fold(node, display_node))) is not None:
            run.finish(_finished(run), now)
            self._recount()

    def fail(self, node: str, now: float) -> None:
        """This node raised."""
        self._run_of(self.fold(node), now).finish(ComfyNodeState.FAILED, now)

    def stop(self, now: float) -> None:
        """The prompt ended without success: nothing runs any more, the fraction stays."""
        for run in self._nodes.values():
            if _runs(run):
                run.finish(ComfyNodeState.FAILED, now)

    def succeed(self, now: float) -> None:
        """The prompt succeeded: all is done."""
        for run in self._nodes.values():
            if run.state is not ComfyNodeState.CACHED:
                run.finish(ComfyNodeState.FINISHED, now)
        self._fraction = 1.0

    def nodes(self, now: float) -> tuple[ComfyNode, ...]:
        """All nodes seen, in the order they were seen."""
        return tuple(self._shown(node, run, now) for node, run in self._nodes.items())

    def snapshot(self, instance: str, prompt_id: str, client_id: str, now: float) -> ComfyRun:
        """The whole, for those who watch."""
        return ComfyRun(
            instance=instance,
            prompt_id=prompt_id,
            client_id=client_id,
            nodes_total=len(self._needed | self._nodes.keys()),
            nodes_seen=len(self._nodes),
            current=self.current,
            nodes=self.nodes(now),
        )

    def _shown(self, node: str, run: NodeRun, now: float) -> ComfyNode:
        running = max(0.0, now - run.started_at) if _runs(run) else 0.0
        known = self._graph.nodes.get(node)
        return ComfyNode(
            id=node,
            title=known.title if known else "",
            class_type=known.class_type if known else "",
            state=run.state,
            progress=run.fraction,
            seconds=round(run.seconds + running, 3),
        )

    def _take(self, run: NodeRun, shown: str, progress: NodeProgress) -> None:
        fraction = 1.0 if progress.state == "finished" else progress.fraction
        if progress.node == shown:
            run.own = max(run.own, fraction or 0.0)
        else:
            run.parts[progress.node] = max(run.parts.get(progress.node, 0.0), fraction or 0.0)
        value, maximum = progress.value, progress.maximum
        countable = maximum is not None and 1 < maximum <= MAX_STEPS_TOLD
        if progress.fraction is not None and value is not None and maximum is not None and countable:
            run.step, run.steps = int(min(value, maximum)), int(maximum)

    def _run_of(self, node: str, now: float) -> NodeRun:
        run = self._nodes.get(node)
        if run is None:
            run = NodeRun(self._count(), now)
            if node in self._graph.nodes or len(self._nodes) < len(self._graph.nodes) + MAX_UNKNOWN_NODES:
                self._nodes[node] = run
        return run

    def _count(self) -> int:
        self._beginnings += 1
        return self._beginnings

    def _leave_all_but(self, node: str, now: float) -> None:
        for other, run in self._nodes.items():
            if other != node and _runs(run):
                run.finish(ComfyNodeState.FINISHED, now)

    def _plan(self) -> None:
        self._needed = self._graph.needed_for(self._outputs)
        self._to_run = self._graph.needed_for(self._outputs, self._cached)
        self._recount()

    def _recount(self) -> None:
        """The whole anew; nodes that run although nobody expected it count as well."""
        ran = {node for node, run in self._nodes.items() if run.state is not ComfyNodeState.CACHED}
        counted = self._to_run | (ran & self._graph.nodes.keys())
        total = sum(self._weights.get(node, LITTLE) for node in counted)
        done = sum(self._weights.get(node, LITTLE) * self._nodes[node].fraction for node in counted & ran)
        if total > 0:
            self._fraction = max(self._fraction, min(done / total, ALMOST))


def _runs(run: NodeRun) -> bool:
    return run.state is ComfyNodeState.RUNNING


def _finished(run: NodeRun) -> ComfyNodeState:
    """A cached output node is called finished by newer versions."""
    return ComfyNodeState.CACHED if run.state is ComfyNodeState.CACHED else ComfyNodeState.FINISHED
