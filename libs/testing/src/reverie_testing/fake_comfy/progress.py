"""How far each node of a running prompt is, and how often that is told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverie_testing.fake_comfy.execution import Run

THROTTLE_S = 0.1
THROTTLE_SHARE = 0.005


@dataclass
class Progress:
    """The state of all nodes that have begun."""

    run: Run
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _told: dict[str, tuple[float, float]] = field(default_factory=dict)

    def start(self, node_id: str) -> None:
        """A node begins."""
        self.nodes[node_id] = self._node(node_id, 0.0, 1.0, "running")
        self._tell_state()

    def finish(self, node_id: str) -> None:
        """A node has ended."""
        node = self.nodes[node_id]
        node["state"] = "finished"
        node["value"] = node["max"]
        self._tell_state()

    def reuse(self, node_id: str) -> None:
        """An output's node has been found in the cache."""
        self.nodes[node_id] = self._node(node_id, 1, 1, "finished")
        self._tell_state()

    def step(self, node_id: str, value: float, maximum: float, preview: tuple[str, bytes] | None) -> None:
        """A node has come so far."""
        node = self.nodes[node_id]
        node["value"], node["max"] = value, maximum
        if preview is None and self._too_soon(node_id, value, maximum):
            return
        host, client = self.run.host, self.run.client
        self._tell_state()
        metadata = self._metadata(node_id)
        if preview is not None and metadata is not None:
            host.hub.tell_preview(*preview, client, metadata)
        # Before there was a state of all nodes, progress named the node of the submitted graph.
        shown = node_id if host.features.progress_state else self.run.display.get(node_id, node_id)
        data = {"value": value, "max": maximum, "prompt_id": self.run.prompt_id, "node": shown}
        host.hub.tell("progress", data, client)
        if preview is not None and metadata is None:
            host.hub.tell_preview(*preview, client, None)

    def _too_soon(self, node_id: str, value: float, maximum: float) -> bool:
        if not self.run.host.features.throttle:
            return False
        now = time.monotonic()
        at, last = self._told.get(node_id, (0.0, 0.0))
        moved = abs(value - last) / maximum if maximum else 1.0
        if value < maximum and last and (now - at < THROTTLE_S or moved < THROTTLE_SHARE):
            return True
        self._told[node_id] = (now, value)
        return False

    def _tell_state(self) -> None:
        features = self.run.host.features
        if features.progress_state:
            nodes = {node_id: dict(node) for node_id, node in self.nodes.items()}
            target = None if features.progress_state_to_all else self.run.client
            self.run.host.hub.tell(
                "progress_state", {"prompt_id": self.run.prompt_id, "nodes": nodes}, target
            )

    def _node(self, node_id: str, value: float, maximum: float, state: str) -> dict[str, Any]:
        told = {"value": value, "max": maximum, "state": state, "node_id": node_id}
        return told | {"prompt_id": self.run.prompt_id, **self._place(node_id)}

    def _place(self, node_id: str) -> dict[str, Any]:
        display = self.run.display.get(node_id, node_id)
        parent = self.run.parent.get(node_id)
        return {"display_node_id": display, "parent_node_id": parent, "real_node_id": display}

    def _metadata(self, node_id: str) -> dict[str, Any] | None:
        features, hub = self.run.host.features, self.run.host.hub
        if not (features.progress_state and hub.wants_metadata(self.run.client)):
            return None
        return {"node_id": node_id, "prompt_id": self.run.prompt_id, **self._place(node_id)}
