"""Keeps the host within one piece of work of an accelerator, which works off what it is given in its own time.

Without it the host would queue every step at once: progress would run ahead of the picture, and a cancelled job
would still be computed to its end.
"""

from __future__ import annotations

import time

import torch


class Pacing:
    """Call `lap` after each piece of work."""

    def __init__(self) -> None:
        self._fences: dict[torch.device, torch.cuda.Event] = {}
        self._lapped_at = time.perf_counter()

    def rested(self) -> None:
        """There was nothing to do: what comes next begins now."""
        self._lapped_at = time.perf_counter()

    def lap(self, device: torch.device) -> float:
        """Wait until the device is at most one piece behind; seconds since the last lap."""
        if device.type == "cuda":
            # One piece stays in flight, so that the device never waits for the host.
            fence = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            fence.record(torch.cuda.current_stream(device))
            before = self._fences.pop(device, None)
            if before is not None:
                before.synchronize()
            self._fences[device] = fence
        elif device.type == "mps":
            torch.mps.synchronize()
        now = time.perf_counter()
        seconds, self._lapped_at = now - self._lapped_at, now
        return seconds

    def drain(self, device: torch.device) -> None:
        """Wait until everything given to the device is done."""
        fence = self._fences.pop(device, None)
        if fence is not None:
            fence.synchronize()
