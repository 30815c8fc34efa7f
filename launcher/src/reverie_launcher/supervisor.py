"""Keeps children running: starts them, waits until they are ready, restarts the dead, stops them in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from reverie_launcher.processes import ChildProcess
from reverie_launcher.restarts import REFUSED_SETTINGS, Backoff, describe_exit

READY_POLL_S = 0.1
#: A child that is not ready by then is mentioned, with its own reason; then again after twice that, and so on.
STILL_WAITING_S = 10.0


class Launch(NamedTuple):
    """How one start of a child goes: the command, its whole environment, and how to ask whether it is ready.

    `ready` answers None when it is, else the reason why not yet.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[], Awaitable[str | None]]


class Reporter(Protocol):
    """Where a person reads what the children do."""

    def line(self, child: str, text: str) -> None:
        """One line of a child's own output."""

    def notice(self, child: str, text: str) -> None:
        """Something the supervisor did or saw."""

    def warning(self, child: str, text: str) -> None:
        """Something went wrong; the text says what happens next."""


class SettingsRefused(Exception):
    """A child exited because its settings are wrong; its last line says which."""

    def __init__(self, child: str, last_line: str) -> None:
        super().__init__(last_line)
        self.child = child
        self.last_line = last_line


class Child:
    """One supervised child.  `run` ends only when it was stopped, or refused its settings.

    `shows` picks the lines of its output that a person gets to see.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[], Launch],
        *,
        reporter: Reporter,
        drain_s: float,
        rng: random.Random,
        shows: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.starts = 0
        self._prepare = prepare
        self._reporter = reporter
        self._drain_s = drain_s
        self._shows = shows
        self._backoff = Backoff(rng)
        self._stopping = asyncio.Event()
        self._process: ChildProcess | None = None
        self._last_line = ""

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Start, and start again whenever it dies; SettingsRefused if it exits with code 2."""
        while not self._stopping.is_set():
            returncode, uptime_s = await self._run_once()
            if self._stopping.is_set():
                return
            if returncode == REFUSED_SETTINGS:
                raise SettingsRefused(self.name, self._last_line)
            delay = self._backoff.after_crash(uptime_s)
            self._reporter.warning(
                self.name, f"{describe_exit(returncode)}; starting it again in {delay:.1f} s"
            )
            await self._pause(delay)

    async def _run_once(self) -> tuple[int, float]:
        launch = self._prepare()
        self._last_line = ""
        self._process = await ChildProcess.start(launch.arguments, launch.environment, self._keep)
        self.starts += 1
        if self._stopping.is_set():  # stop() came while it was being started, and saw no process
            self._process.kill()
        watching = asyncio.create_task(self._watch_readiness(launch))
        try:
            returncode = await self._process.wait()
            return returncode, self._process.uptime_s
        finally:
            self.ready.clear()
            watching.cancel()
            self._process = None

    async def _watch_readiness(self, launch: Launch) -> None:
        clock = asyncio.get_running_loop().time
        begun, mention_after = clock(), STILL_WAITING_S
        while (reason := await launch.ready()) is not None:
            if (waited := clock() - begun) >= mention_after:
                mention_after *= 2
                self._reporter.notice(self.name, f"not ready after {waited:.0f} s: {reason}")
            await asyncio.sleep(READY_POLL_S)
        if self.starts > 1:
            self._reporter.notice(self.name, "is ready again")
        self.ready.set()

    def _keep(self, line: str) -> None:
        if line.strip():
            self._last_line = line
        if self._shows(line):
            self._reporter.line(self.name, line)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def stop(self) -> None:
        """SIGTERM, its drain deadline, then SIGKILL.  Idempotent; fine if it never started."""
        self._stopping.set()
        process = self._process
        if process is not None and not await process.terminate(self._drain_s):
            self._reporter.warning(self.name, f"did not drain within {self._drain_s:.0f} s and was killed")

    def kill(self) -> None:
        """SIGKILL now, and no restart."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()


class Supervisor:
    """Children in stages: a stage starts when the one before is ready, and stops before it."""

    def __init__(self) -> None:
        self._stages: list[list[Child]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._killed = False
        #: Done with SettingsRefused (or a defect of ours) when a child can go on no longer.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, children: Sequence[Child]) -> None:
        """Start these children in parallel; return when all are ready, raise what made one give up."""
        self._stages.append(list(children))
        for child in children:
            task = asyncio.create_task(child.run())
            task.add_done_callback(self._ended)
            self._tasks.add(task)
        ready = asyncio.create_task(_all_ready(children))
        try:
            await asyncio.wait((ready, self.failed), return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                self.failed.result()
        finally:
            ready.cancel()

    async def stop(self) -> None:
        """Drain the last stage, then the one before it, down to the first.  Idempotent."""
        while self._stages and not self._killed:
            await asyncio.gather(*(child.stop() for child in self._stages[-1]))
            self._stages.pop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def kill(self) -> None:
        """End everything at once."""
        self._killed = True
        for stage in self._stages:
            for child in stage:
                child.kill()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # retrieved: whoever waits sees it, and nobody else must


async def _all_ready(children: Sequence[Child]) -> None:
    for child in children:
        await child.ready.wait()
