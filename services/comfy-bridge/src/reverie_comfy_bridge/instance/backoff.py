"""When to try again to reach an instance: for ever, with full jitter."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays between tries.  `random` gives numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        raise NotImplementedError

    @property
    def attempts(self) -> int:
        """Delays given since the last reset."""
        raise NotImplementedError

    def next(self) -> float:
        """Seconds to wait before the next try."""
        raise NotImplementedError

    def reset(self) -> None:
        """It was reached."""
        raise NotImplementedError
