"""How much of a run each node is, so that the whole's progress moves evenly."""

from __future__ import annotations

from collections.abc import Mapping

from reverie_comfy_bridge.run.graph import Graph
from reverie_protocol.jobs import ComfyRun

Weights = Mapping[str, float]


def weigh(graph: Graph, seconds: Weights | None = None) -> dict[str, float]:
    """A weight for each node of a graph: measured `seconds` where there are any, else by class and inputs."""
    raise NotImplementedError


class NodeTimes:
    """Seconds that nodes took in earlier runs, by workflow; bounded, the workflow not used for longest goes."""

    def __init__(self, workflows: int = 256) -> None:
        raise NotImplementedError

    def learn(self, workflow: str, graph: Graph, run: ComfyRun) -> None:
        """A prompt of this workflow succeeded."""
        raise NotImplementedError

    def weights(self, workflow: str, graph: Graph) -> dict[str, float]:
        """Weights for another run of it (`weigh` if it never ran)."""
        raise NotImplementedError
