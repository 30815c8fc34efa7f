"""Named places where a fault test may end or freeze this process: one before and one after each durable write.

A test names a folder in `CRASH_POINTS` and arms a point by putting a file of its name there, with the name of a
signal in it (`KILL` or `STOP`).  The first process that comes by takes the file away and sends itself that signal.
Without the variable, which no deployment sets, a point costs one look into the environment.
"""

from __future__ import annotations

import os
import signal
from typing import Final

CRASH_POINTS: Final = "CRASH_POINTS"


def crash_point(name: str) -> None:
    """Nothing, unless a fault test has armed this point."""
    folder = os.environ.get(CRASH_POINTS)
    if folder:
        _pass(folder, name)


def _pass(folder: str, name: str) -> None:
    armed, taken = os.path.join(folder, name), os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        os.rename(armed, taken)  # atomic: of several that come by, one is hit
    except FileNotFoundError:
        return
    with open(taken, encoding="ascii") as file:
        number = signal.Signals[f"SIG{file.read().strip()}"]
    os.kill(os.getpid(), number)
