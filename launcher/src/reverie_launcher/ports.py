"""Free ports for the processes that nobody addresses by a known one."""

from __future__ import annotations

import random
import socket

from reverie_launcher.exits import ExitCode, Failure

LOOPBACK = "127.0.0.1"
#: Below the range from which systems give out ports of outgoing connections (Linux 32768.., others 49152..).
#: While a server is dead between two starts nobody gets its port by chance, not even one of its own clients
#: that tries to reconnect (a connection to a free port of that range may be connected to itself).
PRIVATE_PORTS = range(24000, 26000)
ATTEMPTS = 200


def choose_port(rng: random.Random, *, avoid: int | None = None) -> int:
    """A private port on loopback where a server could listen now; Failure if hardly any is free."""
    for port in rng.sample(PRIVATE_PORTS, ATTEMPTS):
        if port != avoid and is_free(port):
            return port
    raise Failure(
        ExitCode.FAILED,
        f"Hardly any port is free between {PRIVATE_PORTS.start} and {PRIVATE_PORTS.stop - 1}.",
        advice="Stop what listens there and try again.",
    )


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    try:
        listen_briefly(LOOPBACK, port)
    except OSError:
        return False
    return True


def listen_briefly(host: str, port: int) -> None:
    """Bind and let go; raises the OSError that a server would meet."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
