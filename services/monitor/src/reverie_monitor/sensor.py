"""Measuring that may hang: a driver that is stuck, a mount that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class SensorSilent(Exception):
    """No answer in time; one sentence for an operator."""


class Sensor(Generic[T_co]):
    """A blocking measurement, made in a thread that nobody waits for longer than `timeout_s`.

    The thread is a daemon, so a call that never returns does not keep the process from ending.  While it hangs no
    other one is begun.
    """

    def __init__(self, name: str, measure: Callable[[], T_co], *, timeout_s: float) -> None:
        self._name = name
        self._measure = measure
        self._timeout_s = timeout_s
        self._busy = False

    async def read(self) -> T_co:
        """One measurement; SensorSilent if it takes too long, else whatever the measurement raises."""
        if self._busy:
            raise SensorSilent(f"{self._name} hangs")
        self._busy = True
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T_co] = loop.create_future()
        # Nobody may be there to take it when it comes late.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())

        def settle(hand_over: Callable[[], None]) -> None:
            self._busy = False
            if not answer.done():
                hand_over()

        def run() -> None:
            try:
                hand_over = partial(answer.set_result, self._measure())
            except Exception as error:  # it belongs to whoever asked
                hand_over = partial(answer.set_exception, error)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, hand_over)

        threading.Thread(target=run, name=f"sensor-{self._name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            raise SensorSilent(f"{self._name} did not answer within {self._timeout_s:g} s") from None
