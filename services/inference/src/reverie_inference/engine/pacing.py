"""Keeps the host within one step of an accelerator, which works off what it is given in its own time.

Without it the host would queue every step at once: progress would run ahead of the picture, and a cancelled job
would still be computed to its end.
"""

from __future__ import annotations

import time

import torch


class Pacing:
    """Call `lap` after each step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._previous: torch.cuda.Event | None = None
        self._lapped_at = time.perf_counter()

    def lap(self) -> float:
        """Wait until the device is at most one step behind; seconds since the last lap."""
        if self._device.type == "cuda":
            # One step stays in flight, so that the device never waits for the host.
            fence = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            fence.record()
            if self._previous is not None:
                self._previous.synchronize()
            self._previous = fence
        elif self._device.type == "mps":
            torch.mps.synchronize()
        now = time.perf_counter()
        seconds, self._lapped_at = now - self._lapped_at, now
        return seconds

    def drain(self) -> None:
        """Wait until everything given to the device is done."""
        if self._previous is not None:
            self._previous.synchronize()
            self._previous = None
