"""One service as a process, with exactly the environment that a test gives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import httpx

READY_TIMEOUT_S = 60.0
#: What any process needs, whatever its settings: where programs and temporary files are.
INHERITED = ("PATH", "TMPDIR", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class ServiceProcess:
    """`python -m <module>`; a context manager that leaves no process behind."""

    def __init__(
        self,
        module: str,
        environment: Mapping[str, str],
        *,
        url: str,
        log: Path,
        arguments: Sequence[str] = (),
    ) -> None:
        self.url = url
        self.log = log
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(
            environment
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None, "the service was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, again after an end; output is appended to `log`."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_ready(self, *, timeout: float = READY_TIMEOUT_S) -> None:
        """Return once `/ready` says so; AssertionError with the log if the process ended or the time is over."""
        deadline = time.monotonic() + timeout
        reason = "no answer"
        with httpx.Client(timeout=5.0) as client:
            while time.monotonic() < deadline:
                assert self.running, f"it ended:\n{self.logs()}"
                try:
                    answer = client.get(f"{self.url}/ready")
                except httpx.HTTPError as error:
                    reason = str(error)
                else:
                    if answer.status_code == 200:
                        return
                    reason = answer.text
                time.sleep(0.02)
        raise AssertionError(f"not ready within {timeout} s: {reason}\n{self.logs()}")

    def wait_log(self, text: str, *, timeout: float = READY_TIMEOUT_S) -> None:
        """Return once the log holds `text`; AssertionError with the log if it ended or the time is over."""
        deadline = time.monotonic() + timeout
        while text not in self.logs():
            assert self.running, f"it ended:\n{self.logs()}"
            assert time.monotonic() < deadline, f"{text!r} did not come:\n{self.logs()}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, *, timeout: float = 30.0) -> int:
        """The exit code, once it ended."""
        assert self._process is not None, "the service was not started"
        return self._process.wait(timeout)

    def terminate(self, *, timeout: float = 30.0) -> int:
        """Ask it to end (SIGTERM); its exit code."""
        self.send(signal.SIGTERM)
        return self.wait(timeout=timeout)

    def kill(self) -> None:
        """End it as in a crash (SIGKILL); idempotent."""
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait()

    def logs(self) -> str:
        """What it wrote to standard output and error."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""
