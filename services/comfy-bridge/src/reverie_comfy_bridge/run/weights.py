"""How much of a run each node is, so that the whole's progress moves evenly.

Without measurements a node weighs by what its class and inputs tell: a sampler as much as it has steps, loading a
model or decoding some, everything else little.  Times measured in earlier runs of the same workflow replace that:
they are kept as seconds for each unit of that weight, so that they hold when the next run has other steps.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from reverie_comfy_bridge.run.graph import Graph, GraphNode
from reverie_protocol.jobs import ComfyNodeState, ComfyRun

Weights = Mapping[str, float]

MAX_STEPS: Final = 10_000
LITTLE: Final = 0.5
#: By a pattern in the class, first match; the unit is one denoising step.
_BY_CLASS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), weight)
    for pattern, weight in (
        (r"scheduler|sigmas", 0.1),
        (r"(checkpoint|unet|diffusion|clip|vae|model|lora).*load|load.*(checkpoint|model)", 4.0),
        (r"upscale.*model|supir|esrgan|interpolat|rife", 8.0),
        (r"vae.*(decode|encode)", 3.0),
        (r"sampler", 10.0),
        (r"videocombine|savevideo|saveanimated", 3.0),
        (r"encode", 1.0),
    )
)
_NEW_SHARE: Final = 0.5


def weigh(graph: Graph) -> dict[str, float]:
    """A weight for each node of a graph by its class and inputs, in denoising steps."""
    return {id: _steps(node, graph) or _by_class(node) for id, node in graph.nodes.items()}


def _steps(node: GraphNode, graph: Graph) -> float:
    """The steps that a node takes; those of a scheduler are taken by the sampler it leads to."""
    if _is_scheduler(node):
        return 0.0
    feeding = (graph.nodes[source] for source in node.sources)
    return _own_steps(node) or sum(_own_steps(source) for source in feeding if _is_scheduler(source))


def _own_steps(node: GraphNode) -> float:
    steps = _whole(node.inputs.get("steps"), 0)
    first = _whole(node.inputs.get("start_at_step"), 0)
    last = _whole(node.inputs.get("end_at_step"), steps)
    return max(min(last, steps) - first, 1) if steps else 0


def _whole(value: object, default: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return default
    return min(max(value, 0), MAX_STEPS)


def _is_scheduler(node: GraphNode) -> bool:
    return _BY_CLASS[0][0].search(node.class_type) is not None


def _by_class(node: GraphNode) -> float:
    return next((weight for pattern, weight in _BY_CLASS if pattern.search(node.class_type)), LITTLE)


class NodeTimes:
    """Seconds for each unit of weight that nodes took in earlier runs, by workflow.

    Bounded: the workflow that was not used for longest is forgotten.
    """

    def __init__(self, workflows: int = 256) -> None:
        self._limit = workflows
        self._rates: OrderedDict[str, dict[tuple[str, str], float]] = OrderedDict()

    def learn(self, workflow: str, graph: Graph, run: ComfyRun) -> None:
        """A prompt of this workflow succeeded: what its nodes took counts half, what was known before half."""
        rates = self._rates.setdefault(workflow, {})
        self._rates.move_to_end(workflow)
        base = weigh(graph)
        for node in run.nodes:
            if node.state is not ComfyNodeState.FINISHED or node.id not in base:
                continue
            key, rate = (node.id, graph.class_of(node.id)), node.seconds / base[node.id]
            rates[key] = rates.get(key, rate) * (1 - _NEW_SHARE) + rate * _NEW_SHARE
        for key in [key for key in rates if key[0] not in base]:
            del rates[key]
        while len(self._rates) > self._limit:
            self._rates.popitem(last=False)

    def weights(self, workflow: str, graph: Graph) -> dict[str, float]:
        """Weights for another run of it: seconds where they were measured, the rest in proportion to them."""
        base = weigh(graph)
        rates = self._rates.get(workflow, {})
        known = {id: rates[key] for id in base if (key := (id, graph.class_of(id))) in rates}
        seconds = sum(rate * base[id] for id, rate in known.items())
        if seconds <= 0:
            return base
        average = seconds / sum(base[id] for id in known)
        least = seconds / 1000
        return {id: max(known.get(id, average) * weight, least) for id, weight in base.items()}
