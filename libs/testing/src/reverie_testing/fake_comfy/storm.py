"""Faults drawn from a seed, one after the other, while a test goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from reverie_testing.fake_comfy.faults import FrameFaults
from reverie_testing.fake_comfy.server import FakeComfy

#: What can happen, and how likely beside the others.
WEIGHTS = {
    "abort_sockets": 6.0,
    "close_sockets": 3.0,
    "deafen": 4.0,
    "freeze_sockets": 2.0,
    "freeze_events": 2.0,
    "stall": 2.0,
    "refuse_post": 3.0,
    "misreport_post": 3.0,
    "swallow_answer": 3.0,
    "lose_interrupt": 2.0,
    "delete_outputs": 0.0,
    "kill_worker": 1.0,
    "restart": 3.0,
}


@dataclass
class Storm:
    """A seeded schedule; the same seed draws the same faults at the same distances."""

    seed: int
    #: Mean time between two faults.
    every_s: float = 1.0
    #: How long something stays frozen, stalled, dead or away at most.
    for_s: float = 1.0
    frames: FrameFaults = field(
        default_factory=lambda: FrameFaults(drop=0.05, duplicate=0.05, delay=0.05, reorder=0.05)
    )
    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    #: What has happened, for a failing test's report.
    happened: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def over(self, fake: FakeComfy) -> AsyncIterator[Storm]:
        """Rage until the block ends; afterwards the server is up and healthy, and no fault is on."""
        self.frames.random.seed(self.seed)
        calm, fake.faults.frames = fake.faults.frames, self.frames
        raging = asyncio.create_task(self._rage(fake))
        try:
            yield self
        finally:
            raging.cancel()
            await asyncio.wait([raging])
            fake.faults.frames = calm
            fake.faults.refused_posts = fake.faults.misreported_posts = 0
            fake.faults.unanswered_posts = fake.faults.lost_interrupts = 0
            fake.faults.release()
            await fake.restart()
            # A storm that broke itself has proved nothing.
            if not raging.cancelled():
                raging.result()

    async def _rage(self, fake: FakeComfy) -> None:
        draw = random.Random(self.seed)
        names, weights = list(self.weights), list(self.weights.values())
        while True:
            await asyncio.sleep(draw.expovariate(1 / self.every_s))
            [name] = draw.choices(names, weights)
            pause = draw.uniform(0, self.for_s)
            self.happened.append(name)
            await self._do(fake, name, pause)

    async def _do(self, fake: FakeComfy, name: str, pause: float) -> None:
        faults = fake.faults
        counters = {
            "refuse_post": "refused_posts",
            "misreport_post": "misreported_posts",
            "swallow_answer": "unanswered_posts",
            "lose_interrupt": "lost_interrupts",
        }
        if name in counters:
            setattr(faults, counters[name], getattr(faults, counters[name]) + 1)
        elif name == "close_sockets":
            await fake.close_sockets()
        elif name == "restart":
            await fake.restart(pause)
        elif name in UNTIL:
            begin, end = UNTIL[name]
            begin(fake)
            await asyncio.sleep(pause)
            ended = end(fake)
            if ended is not None:
                await ended
        else:
            getattr(fake, name)()


#: What lasts: how it begins and how it ends.
UNTIL: dict[str, tuple[Callable[[FakeComfy], None], Callable[[FakeComfy], Awaitable[None] | None]]] = {
    "freeze_sockets": (FakeComfy.freeze_sockets, FakeComfy.thaw_sockets),
    "freeze_events": (FakeComfy.freeze_events, FakeComfy.thaw_events),
    "stall": (lambda fake: fake.faults.stall(), lambda fake: fake.faults.release()),
    "kill_worker": (FakeComfy.kill_worker, FakeComfy.restart),
}
