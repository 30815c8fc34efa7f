"""What can go wrong between a ComfyUI and its client, to be switched on by a test or drawn by a seeded storm."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from reverie_testing.fake_comfy.wire import Request, Socket


def every_frame(_: str | bytes) -> bool:
    """Faults hit any frame."""
    return True


@dataclass
class FrameFaults:
    """Chances (0..1) that a frame is lost, doubled, late, or swapped with its successor."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    #: A late frame comes at most so much later, after frames that were sent since.
    delay_s: float = 0.2
    #: Which frames can be hit.
    only: Callable[[str | bytes], bool] = every_frame
    random: random.Random = field(default_factory=lambda: random.Random(0))
    _held: dict[Socket, str | bytes] = field(default_factory=dict)
    _late: set[asyncio.Task[None]] = field(default_factory=set)

    async def deliver(self, socket: Socket, frame: str | bytes) -> None:
        """Send a frame as well as the faults let it."""
        held = self._held.pop(socket, None)
        hit = self.only(frame)
        if not (hit and self._chance(self.drop)):
            if hit and held is None and self._chance(self.reorder):
                self._held[socket] = frame
                return
            if hit and self._chance(self.delay):
                self._send_late(socket, frame)
            else:
                await socket.send(frame)
            if hit and self._chance(self.duplicate):
                await socket.send(frame)
        if held is not None:
            await socket.send(held)

    def _chance(self, of: float) -> bool:
        return of > 0 and self.random.random() < of

    def _send_late(self, socket: Socket, frame: str | bytes) -> None:
        async def later() -> None:
            await asyncio.sleep(self.random.uniform(0, self.delay_s))
            await socket.send(frame)

        task = asyncio.create_task(later())
        self._late.add(task)
        task.add_done_callback(self._late.discard)


@dataclass
class Faults:
    """All that a test can switch; what is on stays on over restarts until it is switched off."""

    frames: FrameFaults = field(default_factory=FrameFaults)
    #: How long the history lacks a prompt after its end was told.
    history_delay_s: float = 0.0
    #: Interrupts that are answered with 200 and do nothing, so many.
    lost_interrupts: int = 0
    #: POST /prompt answered with 500 without queuing, so many.
    refused_posts: int = 0
    #: POST /prompt answered with 500 although the prompt is queued, so many.
    misreported_posts: int = 0
    #: POST /prompt queued, and the connection dropped instead of an answer, so many.
    unanswered_posts: int = 0
    #: GET /view answered with 500, as for a file that the server may not read.
    unreadable_files: bool = False
    #: POST /upload/image answered with 500, as where its disk is full.
    refused_uploads: bool = False
    #: While set, requests wait to be answered; a test clears it.
    stalled: Callable[[Request], bool] | None = None
    #: Woken when `stalled` changes.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def stall(self, which: Callable[[Request], bool] = lambda _: True) -> None:
        """Let these requests wait (all, unless told)."""
        self.stalled = which

    def release(self) -> None:
        """Let the waiting requests go on."""
        self.stalled = None
        self.changed.set()
        self.changed.clear()

    async def pass_(self, request: Request) -> None:
        """Wait while requests like this one are stalled."""
        while self.stalled is not None and self.stalled(request):
            await self.changed.wait()
