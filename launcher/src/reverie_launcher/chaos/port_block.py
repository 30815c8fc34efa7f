"""Ports for the members of one cluster, which nobody else of this harness takes while a member is down."""

from __future__ import annotations

import random
import socket
from typing import Final

from reverie_launcher.ports import LOOPBACK, is_free

#: Below what systems give to outgoing connections, and apart from what `reverie up` chooses from.
PORTS: Final = range(10_240, 23_552)
SIZE: Final = 64
TRIES: Final = 200


class PortBlock:
    """A block of ports; its first is held as long as the block is used, so that no two clusters have the same."""

    def __init__(self, rng: random.Random) -> None:
        self._holder, first = _hold_block(rng)
        self._left = iter(range(first + 1, first + SIZE))

    def take(self) -> int:
        """The next port that is free; RuntimeError if there is none left."""
        for port in self._left:
            if is_free(port):
                return port
        raise RuntimeError("the cluster needs more ports than its block has")

    def give_back(self) -> None:
        """Others may have the block; idempotent."""
        self._holder.close()


def _hold_block(rng: random.Random) -> tuple[socket.socket, int]:
    for _ in range(TRIES):
        first = rng.choice(PORTS[::SIZE])
        holder = socket.socket()
        try:
            holder.bind((LOOPBACK, first))
            holder.listen()
        except OSError:
            holder.close()
            continue
        return holder, first
    raise RuntimeError("no block of ports is free")
