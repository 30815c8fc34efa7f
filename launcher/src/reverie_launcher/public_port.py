"""The port that people use: whether it can be had, and who has it if not."""

from __future__ import annotations

import errno

import psutil

from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.ports import listen_briefly


def check_public_port(host: str, port: int) -> None:
    """Failure, naming the process where the system tells it, if the gateway could not listen there."""
    try:
        listen_briefly(host, port)
    except OSError as error:
        raise _refusal(host, port, error) from None


def _refusal(host: str, port: int, error: OSError) -> Failure:
    if error.errno == errno.EADDRINUSE:
        return Failure(
            ExitCode.USAGE,
            f"Port {port} is taken{_by(port)}.",
            advice="Stop that one, or choose another port with --port.",
        )
    if error.errno == errno.EACCES:
        return Failure(
            ExitCode.USAGE,
            f"Port {port} may not be used by this user.",
            advice="Choose one above 1023 with --port.",
        )
    return Failure(
        ExitCode.USAGE,
        f"{host} is no address of this machine ({error.strerror}).",
        advice="Choose another with --host, such as 127.0.0.1 or 0.0.0.0.",
    )


def _by(port: int) -> str:
    """Which process listens there; empty if it belongs to another user and the system keeps it to itself."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({_describe(connection.pid)})"
    except psutil.Error:
        pass
    return ""


def _describe(pid: int) -> str:
    process = psutil.Process(pid)
    command = " ".join(process.cmdline()) or process.name()
    return command if len(command) <= 60 else f"{command[:59]}…"
