"""The product as a whole: `reverie up` in real processes, on a port and in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

CHILDREN = ("nats-server", "reverie_gateway", "reverie_inference", "reverie_dreams", "reverie_monitor")
START_TIMEOUT_S = 120.0
EVENT_TIMEOUT_S = 60.0


def until(condition: Callable[[], Any], what: str, *, timeout_s: float = EVENT_TIMEOUT_S) -> Any:
    """The first true value of `condition`, asked again and again; fails naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, psutil.Error, KeyError):
            value = condition()
            if value:
                return value
        time.sleep(0.02)
    pytest.fail(f"waited {timeout_s} s for {what}")


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Product:
    """A running `reverie up`."""

    url: str
    data: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def ws_url(self) -> str:
        """Where its WebSocket is."""
        return self.url.replace("http", "ws") + "/v1/ws"

    def processes(self) -> dict[str, psutil.Process]:
        """The launcher and its children, by what stands in their command lines."""
        launcher = psutil.Process(self.process.pid)
        found = {"launcher": launcher}
        for child in launcher.children(recursive=True):
            command = " ".join(child.cmdline())
            found |= {name: child for name in CHILDREN if name in command}
        return found

    def pid_of(self, name: str) -> int:
        """Process id of one of `CHILDREN`; KeyError while it is not there."""
        return int(self.processes()[name].pid)

    def kill(self, name: str) -> int:
        """kill -9 that child; its process id, so that a test can see another come."""
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as polling shows it."""
        answer = httpx.get(f"{self.url}/v1/jobs/{job_id}", timeout=10)
        answer.raise_for_status()
        view: dict[str, Any] = answer.json()
        return view

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job once it is in a terminal state."""

        def terminal() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in ("completed", "failed", "cancelled") else None

        view: dict[str, Any] = until(terminal, f"job {job_id} to end")
        return view

    def submit(self, **body: Any) -> str:
        """Submit a job over HTTP; its id."""
        request = {"jobType": "generate", "prompt": "a red circle on a blue background", **body}
        answer = httpx.post(f"{self.url}/v1/jobs", json=request, timeout=10)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["jobId"])

    def nats_url(self) -> str:
        """The nats-server that belongs to it."""
        for path in self.data.rglob("*.conf"):
            if found := re.search(r'"listen": "[\d.]+:(\d+)"', path.read_text()):
                return f"nats://127.0.0.1:{found.group(1)}"
        pytest.fail("no NATS configuration in the data folder")


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Product]:
    """`reverie up` with these arguments, ready to work; stopped by SIGTERM afterwards."""
    port = free_port()
    log = folder / "up.log"
    command = [str(Path(sys.executable).with_name("reverie")), "up", "--no-generate"]
    options = ["--port", str(port), "--data", str(folder / "data"), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=subprocess.STDOUT)
    product = Product(f"http://127.0.0.1:{port}", folder / "data", log, process)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        if httpx.get(f"{product.url}/ready", timeout=5).status_code != 200:
            return False
        with connect(product.ws_url) as socket_:
            return bool(json.loads(socket_.recv(timeout=5))["mode"])

    try:
        until(ready, "reverie up to be ready", timeout_s=START_TIMEOUT_S)
        yield product
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"reverie up did not drain:\n{log.read_text()[-5000:]}")
