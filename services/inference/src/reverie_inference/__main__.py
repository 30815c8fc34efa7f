"""`python -m reverie_inference`: one worker, run from settings."""

from __future__ import annotations

import os
import sys

from reverie_inference.service import serve
from reverie_inference.settings import Settings
from reverie_runtime.lifecycle import run_service

#: Sections of other services, which may stand in a shared TOML file.
OTHER_SECTIONS = ("gateway", "auth", "dreams", "comfy", "comfy_bridge", "monitor", "alerts")


def main() -> int:
    """Run the service; its exit code."""
    # OpenMP threads that wait by spinning take the cores from each other as soon as anything else runs; read when
    # torch is imported, in the engine's thread.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What they say at import concerns their developers.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # Nothing here talks to the hub but the loading of a hub id.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return run_service("inference", Settings, serve, tolerated_sections=OTHER_SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
