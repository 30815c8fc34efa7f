"""The machines that a monitor runs on, as their monitors say on `system.status`."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
from msgspec.structs import replace

from reverie_protocol.nodes import NodeStatus
from reverie_protocol.server_messages import SystemStatus
from reverie_protocol.subjects import NODE_SILENT_S
from reverie_runtime.bus.port import Message
from reverie_runtime.clock import Clock

log = structlog.get_logger(__name__)


class NodeBoard:
    """The latest of each node; a node whose monitor is silent for `NODE_SILENT_S` is not there."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[NodeStatus, float]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._decoder = msgspec.json.Decoder(SystemStatus)

    @property
    def nodes(self) -> tuple[NodeStatus, ...]:
        """The nodes there are, by name."""
        since = self._clock.monotonic() - NODE_SILENT_S
        self._heard = {name: heard for name, heard in self._heard.items() if heard[1] >= since}
        return tuple(node for _, (node, _) in sorted(self._heard.items()))

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when a monitor has said something."""
        self._listeners.append(listener)

    def on_status(self, message: Message) -> None:
        """`system.status` from a monitor."""
        try:
            status = self._decoder.decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("unreadable status ignored", reason=type(error).__name__)
            return
        for node in status.nodes:
            self._heard[node.node] = (_for_clients(node), self._clock.monotonic())
        for listener in self._listeners:
            listener()


def _for_clients(node: NodeStatus) -> NodeStatus:
    """A node without what is no client's business: the processes on its GPUs."""
    return replace(node, gpus=tuple(replace(gpu, processes=None) for gpu in node.gpus))
