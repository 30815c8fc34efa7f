"""One process of the system under test: started, killed, frozen, and started again whenever it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

import msgspec

from reverie_launcher.processes import ChildProcess
from reverie_launcher.restarts import REFUSED_SETTINGS, describe_exit
from reverie_launcher.supervisor import Launch

RESTART_S: Final = 0.1
READY_POLL_S: Final = 0.05
#: A process that ends by itself so often in a row before it is ready cannot start at all.
MOST_FAILURES: Final = 20


class Happened(msgspec.Struct, frozen=True):
    """Something in a member's life: `at` in seconds since the epoch."""

    at: float
    member: str
    what: str


class Member:
    """A process that is always started again, after as long as the fault says; `life` is what happened to it."""

    def __init__(
        self, name: str, prepare: Callable[[], Launch], *, log: Path, on_line: Callable[[str, str], None]
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.life: list[Happened] = []
        self._prepare = prepare
        self._log = log
        self._on_line = on_line
        self._file: TextIO | None = None
        self._process: ChildProcess | None = None
        self._restart_after_s = RESTART_S
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process (it may be frozen)."""
        return self._process is not None

    def start(self) -> None:
        """Start, and start again whenever it ends."""
        self._file = self._log.open("a", encoding="utf-8", buffering=1)
        self._task = asyncio.create_task(self._run(), name=self.name)

    def kill(self, *, down_s: float = RESTART_S) -> bool:
        """SIGKILL; it comes back after `down_s`.  False if it is not there."""
        if self._process is None:
            return False
        self._restart_after_s = max(down_s, RESTART_S)
        self._note("killed")
        self._process.kill()
        return True

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        return self._process.pid if self._process is not None else None

    def freeze(self) -> bool:
        """SIGSTOP.  False if it is not there."""
        return self._signal(signal.SIGSTOP, "frozen")

    def thaw(self) -> bool:
        """SIGCONT."""
        return self._signal(signal.SIGCONT, "thawed")

    async def stop(self, *, within_s: float) -> None:
        """End it for good, gently if it can; idempotent."""
        self._stopping = True
        if self._process is not None:
            self.thaw()
            await self._process.terminate(within_s)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._file is not None:
            self._file.close()
            self._file = None

    async def wait_ready(self) -> None:
        """Return when its present process is ready; RuntimeError if it refused its settings."""
        waiting = asyncio.create_task(self.ready.wait())
        tasks: set[asyncio.Task[object]] = {waiting} | ({self._task} if self._task else set())
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not self.ready.is_set():
            waiting.cancel()
            raise RuntimeError(f"{self.name} did not start, see {self._log}")

    async def _run(self) -> None:
        failures = 0
        while not self._stopping:
            launch = self._prepare()
            self._process = await ChildProcess.start(launch.arguments, launch.environment, self._keep)
            self._note("started")
            watching = asyncio.create_task(self._watch(launch))
            try:
                returncode = await self._process.wait()
            finally:
                self._process = None
                watching.cancel()
                was_ready = self.ready.is_set()
                self.ready.clear()
            self._note(describe_exit(returncode))
            failures = failures + 1 if returncode > 0 and not was_ready else 0
            if returncode == REFUSED_SETTINGS or failures == MOST_FAILURES:
                return
            if not self._stopping:
                await asyncio.sleep(self._restart_after_s)
                self._restart_after_s = RESTART_S

    async def _watch(self, launch: Launch) -> None:
        while await launch.ready() is not None:  # noqa: ASYNC110  # another process becomes ready
            await asyncio.sleep(READY_POLL_S)
        self._note("ready")
        self.ready.set()

    def _signal(self, number: signal.Signals, what: str) -> bool:
        process = self._process
        if process is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
            self._note(what)
            return True
        return False

    def _note(self, what: str) -> None:
        self.life.append(Happened(time.time(), self.name, what))

    def _keep(self, line: str) -> None:
        if self._file is not None:
            self._file.write(line + "\n")
        self._on_line(self.name, line)
