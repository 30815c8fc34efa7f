"""When a dead child is started again, and how its end is told.  Pure: no clock, no process."""

from __future__ import annotations

import random
import signal

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0
STABLE_AFTER_S = 30.0
JITTER = 0.25  # of the delay, so that children that died of one cause do not start in step

#: What a service exits with when its settings are wrong: starting it again cannot help.
REFUSED_SETTINGS = 2


class Backoff:
    """Delay before each restart: 0.1 s after the first crash, doubling to 10 s, forgotten after 30 s of life."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._crashes = 0

    def after_crash(self, uptime_s: float) -> float:
        """Seconds to wait before the next start, given how long the process had lived."""
        if uptime_s >= STABLE_AFTER_S:
            self._crashes = 0
        delay = min(FIRST_DELAY_S * 2.0**self._crashes, LONGEST_DELAY_S)
        if self._crashes:
            delay = min(delay * self._rng.uniform(1 - JITTER, 1 + JITTER), LONGEST_DELAY_S)
        self._crashes = min(self._crashes + 1, 64)  # 2.0**n stays a number
        return delay


def describe_exit(returncode: int) -> str:
    """How a process ended, as the end of a sentence: "was killed by SIGKILL", "exited with code 1"."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was killed by {name}"
