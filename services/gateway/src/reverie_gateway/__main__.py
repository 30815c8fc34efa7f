"""`python -m reverie_gateway`: run one gateway."""

from __future__ import annotations

import sys

from reverie_gateway.composition import serve
from reverie_gateway.settings import Settings
from reverie_runtime.lifecycle import run_service

#: Sections of other services that a shared settings file may have.
OTHERS = ("health", "inference", "dreams", "comfy", "monitor", "alerts")


def main() -> int:
    """Serve until a signal; the exit code."""
    return run_service("gateway", Settings, serve, tolerated_sections=OTHERS)


if __name__ == "__main__":
    sys.exit(main())
