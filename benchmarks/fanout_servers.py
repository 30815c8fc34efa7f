"""The servers that `fanout.py` compares: how each is started, joined by a client, and given an event."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import msgspec
import psutil
from gateway_stage import PROGRESS_MARKER, STATE_MARKER, Stage, gateway_stage
from raw_socket import NatsPublisher, RawSocket

from reverie_testing.nats_server import NatsServer, free_port

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
SOURCES = Path(__file__).resolve().parent / "baselines"
#: Pinned, and never among the project's own requirements.
PYTHON_PACKAGES = (
    "picows==2.3.1",
    "fastapi==0.165.0",
    "python-socketio==5.18.1",
    "uvicorn==0.54.0",
    "websockets==17.4",
)
NODE_PACKAGES = ("ws@8",)
INSTALL_S = 600


class Server(msgspec.Struct):
    """A server under measurement.

    `join` connects one client; during `publishing` the yielded function gives it that many events in one write.
    """

    name: str
    process: psutil.Process
    join: Callable[[], RawSocket]
    publishing: Callable[[], AbstractContextManager[Callable[[int], None]]]
    most_at_once: int = 32


class Missing(Exception):
    """A baseline that cannot be had here."""


@contextmanager
def reverie(stage: Stage) -> Iterator[Server]:
    """The gateway; an event is a running job's progress, as its worker publishes it on NATS."""
    yield Server(
        "reverie",
        stage.process,
        lambda: _joined_reverie(stage.port, PROGRESS_MARKER),
        lambda: nullcontext(stage.progress),
    )


@contextmanager
def reverie_records(stage: Stage) -> Iterator[Server]:
    """The gateway; an event is a durable change of a job's record (compare-and-set, fsync, watch, mirror, log)."""

    def change(count: int) -> None:
        for _ in range(count):
            stage.change()

    yield Server(
        "reverie, job records",
        stage.process,
        lambda: _joined_reverie(stage.port, STATE_MARKER),
        lambda: nullcontext(change),
        most_at_once=1,
    )


def _joined_reverie(port: int, marker: bytes) -> RawSocket:
    client = RawSocket(port, "/v1/ws", marker=marker, greeting=[b'{"type":"hello"}'])
    client.wait_for(b'"hello:ok"')
    client.counted = 0
    return client


@contextmanager
def nats(payload: bytes) -> Iterator[Server]:
    """nats-server's own WebSocket: clients subscribe, events are published over its TCP port."""
    with tempfile.TemporaryDirectory(prefix="reverie-benchmark-") as folder:
        port = free_port()
        server = NatsServer(
            Path(folder), jetstream=False, extra=f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}'
        )
        server.start()
        try:
            publisher = NatsPublisher(server.port)
            message = b"PUB fanout %d\r\n%s\r\n" % (len(payload), payload)

            def join() -> RawSocket:
                client = RawSocket(port, "/", marker=PROGRESS_MARKER)
                client.send(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB fanout 1\r\nPING\r\n')
                client.wait_for(b"PONG")
                return client

            yield Server(
                "nats-server websocket",
                psutil.Process(server.pid),
                join,
                lambda: nullcontext(lambda count: publisher.send(message * count)),
            )
            publisher.close()
        finally:
            server.stop()


@contextmanager
def broadcaster(name: str, payload: bytes, python: Path | None, source: str) -> Iterator[Server]:
    """A server of `baselines/`: events are messages of one more client, on /publish."""
    program = [str(python), str(SOURCES / source)] if python else _node_command(source)
    with _running(program) as (process, port):
        yield Server(
            name,
            process,
            lambda: RawSocket(port, "/", marker=PROGRESS_MARKER),
            lambda: _publishing(lambda: RawSocket(port, "/publish", marker=PROGRESS_MARKER), payload),
        )


@contextmanager
def socketio(payload: bytes, python: Path) -> Iterator[Server]:
    """python-socketio over WebSocket; events are `publish` messages of one more client."""
    with _running([str(python), str(SOURCES / "socketio_server.py")]) as (process, port):

        def join() -> RawSocket:
            client = RawSocket(port, "/socket.io/?EIO=4&transport=websocket", marker=PROGRESS_MARKER)
            client.wait_for(b"pingInterval")
            client.send(b"40")
            client.wait_for(b'40{"sid"')
            return client

        message = b'42["publish",' + payload + b"]"
        yield Server("python-socketio", process, join, lambda: _publishing(join, message))


@contextmanager
def _publishing(join: Callable[[], RawSocket], message: bytes) -> Iterator[Callable[[int], None]]:
    publisher = join()
    try:
        yield lambda count: publisher.send(message, times=count)
    finally:
        publisher.close()


@contextmanager
def _running(command: list[str]) -> Iterator[tuple[psutil.Process, int]]:
    """A server that prints its port."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Missing(f"{command[-1]} did not start")
        yield psutil.Process(process.pid), int(line)
    finally:
        process.kill()
        process.wait()


def baseline_python() -> Path:
    """The Python of a private environment with the baselines' packages, made once."""
    folder = CACHE / "venv"
    python = folder / "bin" / "python"
    wanted = json.dumps(PYTHON_PACKAGES)
    stamp = folder / "packages.json"
    if not (stamp.exists() and stamp.read_text() == wanted):
        _install([sys.executable, "-m", "venv", "--clear", str(folder)])
        _install([str(python), "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES])
        stamp.write_text(wanted)
    return python


def _node_command(source: str) -> list[str]:
    """node with the baselines' packages, installed once."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise Missing("node or npm is not installed")
    folder = CACHE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "ws").exists():
        _install(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", *NODE_PACKAGES])
    shutil.copy(SOURCES / source, folder / source)
    return [node, str(folder / source)]


def _install(command: list[str]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=INSTALL_S, env=os.environ.copy()
        )
    except (subprocess.SubprocessError, OSError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise Missing(reason.strip().splitlines()[-1] if reason.strip() else str(error)) from None


def openers(stage: Stage, payload: bytes) -> dict[str, Callable[[], AbstractContextManager[Server]]]:
    """Every server by name, in the order in which they take turns."""
    return {
        "reverie": lambda: reverie(stage),
        "nats-server websocket": lambda: nats(payload),
        "picows": lambda: broadcaster("picows", payload, baseline_python(), "picows_server.py"),
        "node ws": lambda: broadcaster("node ws", payload, None, "ws_server.mjs"),
        "fastapi": lambda: broadcaster("fastapi", payload, baseline_python(), "fastapi_server.py"),
        "python-socketio": lambda: socketio(payload, baseline_python()),
        "reverie, job records": lambda: reverie_records(stage),
    }


__all__ = ["Missing", "Server", "gateway_stage", "openers"]
