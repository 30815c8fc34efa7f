"""The engine's thread between the event loop's commands and the engine's steps."""

from __future__ import annotations

import threading
from typing import Any

from reverie_inference.worker.engine_thread import INBOX_COMMANDS, EngineThread
from reverie_protocol.jobs import Lane


class Engine:
    """Has one job, and notes into which lanes it is put."""

    jobs = ("run",)

    def __init__(self) -> None:
        self.lanes: list[int] = []

    def reprioritise(self, job_id: str, lane: int) -> None:
        self.lanes.append(lane)

    def step(self) -> list[Any]:
        return []

    def capabilities(self) -> None:
        """Nothing is offered."""


def test_a_job_that_is_moved_again_and_again_while_a_model_loads_leaves_room_for_other_commands() -> None:
    engine, loaded = Engine(), threading.Event()

    def load() -> Any:
        loaded.wait(60)
        return engine, engine

    thread = EngineThread(load, lambda _: None)
    thread.start()
    for number in range(2 * INBOX_COMMANDS):
        thread.reprioritise("run", Lane.URGENT if number % 2 else Lane.BACKGROUND)
    thread.stop()
    loaded.set()
    assert thread.join(60)
    assert engine.lanes == [Lane.URGENT]
