"""The machine without its GPUs, and the file system under a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import psutil

from reverie_protocol.nodes import Disk, Host

_GB: Final = 1024**3


def read_host() -> Host:
    """Cores, memory and load; the CPU's share is that since the last call, 0 at the first."""
    memory = psutil.virtual_memory()
    return Host(
        cores=psutil.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(interval=None),
        load=round(psutil.getloadavg()[0], 2),
        memory_total_gb=round(memory.total / _GB, 2),
        memory_available_gb=round(memory.available / _GB, 2),
    )


def read_disk(path: Path) -> Disk:
    """The file system that a folder is on, or will be on; OSError if it cannot be asked."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    usage = shutil.disk_usage(existing)
    return Disk(
        path=os.fspath(path), total_gb=round(usage.total / _GB, 2), free_gb=round(usage.free / _GB, 2)
    )
