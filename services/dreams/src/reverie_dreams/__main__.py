"""`python -m reverie_dreams`: the dreams service, run from settings."""

from __future__ import annotations

import sys

from reverie_dreams.service import serve
from reverie_dreams.settings import Settings
from reverie_runtime.lifecycle import run_service

#: Sections of other services, which may stand in a shared TOML file.
OTHER_SECTIONS = ("gateway", "auth", "inference", "monitor", "alerts", "comfy", "comfy_bridge")


def main() -> int:
    """Run the service; its exit code."""
    return run_service("dreams", Settings, serve, tolerated_sections=OTHER_SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
