"""`python -m reverie_monitor`: the monitor of one node, run from settings."""

from __future__ import annotations

import sys

from reverie_monitor.service import serve
from reverie_monitor.settings import Settings
from reverie_runtime.lifecycle import run_service

#: Sections of other services, which may stand in a shared TOML file.
OTHER_SECTIONS = ("gateway", "auth", "inference", "dreams", "comfy", "comfy_bridge")


def main() -> int:
    """Run the service; its exit code."""
    return run_service("monitor", Settings, serve, tolerated_sections=OTHER_SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
