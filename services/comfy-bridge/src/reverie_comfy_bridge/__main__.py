"""`python -m reverie_comfy_bridge`: the bridge to all ComfyUI instances, run from settings."""

from __future__ import annotations

import logging
import sys

from reverie_comfy_bridge.service import serve
from reverie_comfy_bridge.settings import Settings
from reverie_runtime.lifecycle import run_service

#: Sections of other services, which may stand in a shared TOML file.
OTHER_SECTIONS = ("gateway", "auth", "inference", "dreams", "monitor", "alerts")


def main() -> int:
    """Run the service; its exit code."""
    # It tells each of many calls; what goes wrong with one is told by whoever made it.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return run_service("comfy_bridge", Settings, serve, tolerated_sections=OTHER_SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
