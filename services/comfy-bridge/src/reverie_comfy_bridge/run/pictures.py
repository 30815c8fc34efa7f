"""Final pictures that go over the socket alone: which of them have come.

`SaveImageWebsocket` saves nothing; it sends each picture of its batch as a preview would be sent, after its own
progress has said which one it is.  What is not heard exists nowhere.
"""

from __future__ import annotations

from typing import Final

from reverie_comfy_bridge.run.events import ImageSent
from reverie_comfy_bridge.run.graph import Graph

#: Their previews are their outputs.
SENDING_CLASSES: Final = frozenset({"SaveImageWebsocket", "ETN_SendImageWebSocket"})
MAX_PICTURES_OF_A_NODE: Final = 4096


class SentPictures:
    """The pictures of one prompt's sending nodes, by node and index."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = frozenset(id for id, node in graph.nodes.items() if node.class_type in SENDING_CLASSES)
        self._got: dict[str, dict[int, int]] = {}
        self._batch: dict[str, int] = {}

    def expect(self, node: str, maximum: float | None) -> None:
        """A sending node's progress tells how many it will send."""
        if node in self.nodes and maximum is not None and 1 <= maximum <= MAX_PICTURES_OF_A_NODE:
            self._batch[node] = max(self._batch.get(node, 1), int(maximum))

    def take(self, node: str, image: bytes, media_type: str, step: int) -> ImageSent | None:
        """A picture of a sending node whose progress stands at `step`; None if it was taken before."""
        got = self._got.setdefault(node, {})
        digest = hash(image)
        if got.get(step) == digest or len(got) >= MAX_PICTURES_OF_A_NODE:
            return None
        index = step if step not in got else max(got) + 1
        got[index] = digest
        return ImageSent(node, index, image, media_type)

    def missing(self, ran: frozenset[str]) -> tuple[str, ...]:
        """The sending nodes among those that ran of which pictures were not heard."""
        return tuple(
            node
            for node in sorted(self.nodes & ran)
            if len(self._got.get(node, {})) < self._batch.get(node, 1)
        )
