"""What follows from an instance's URL."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from urllib.parse import urlsplit

from reverie_comfy_bridge.instance.client import Unreachable
from reverie_comfy_bridge.instance.reasons import Reason
from reverie_jobs.instance_urls import may_connect


async def require_allowed(url: str) -> None:
    """Unreachable if the host's name leads to where no instance may be; a name may lead elsewhere than before."""
    parts = urlsplit(url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            parts.hostname, parts.port or 80, type=socket.SOCK_STREAM
        )
    except OSError as error:
        raise Unreachable(Reason.NAME_UNKNOWN, f"its host's name is not known: {error.strerror}") from None
    if not all(may_connect(str(address[0])) for *_, address in found):
        raise Unreachable(Reason.NAME_UNKNOWN, "its host's name leads to an address that is not allowed")


def socket_url(url: str, client_id: str) -> str:
    """Where its WebSocket is, for a client id of ours."""
    return f"ws{url.removeprefix('http')}/ws?clientId={client_id}"


def incarnation_of(url: str) -> str:
    """The incarnation of the worker that stands for an instance: it lasts as long as the instance's address.

    So a bridge that comes back finds the jobs that it ran there as its own, and their prompts with them.
    """
    return hashlib.sha256(url.encode()).hexdigest()[:12]
