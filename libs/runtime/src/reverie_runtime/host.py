"""The machine that this process runs on."""

from __future__ import annotations

import re
import socket


def host_name() -> str:
    """This host's name as part of a key: letters, digits, `_` and `-`, 64 at most."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-")[:64] or "host"
