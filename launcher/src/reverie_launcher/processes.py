"""One child process: started on a leash, its output as lines, ended gently or hard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

MAX_LINE_BYTES = 64 * 1024
#: Overflow policy of a line that does not end: it is cut here and goes on as another line.
READ_BYTES = 64 * 1024
OUTPUT_GRACE_S = 1.0

_TETHER = Path(__file__).with_name("tether.py")


class ChildProcess:
    """A running process.  It dies with this one, ignores the terminal's Ctrl-C, and reports each output line."""

    def __init__(
        self, process: asyncio.subprocess.Process, output: int, on_line: Callable[[str], None]
    ) -> None:
        self._process = process
        self._started = time.monotonic()
        self._output = asyncio.create_task(_report(output, on_line))

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> ChildProcess:
        """Start the command with exactly this environment; call `on_line` for each line of its output."""
        # -I -S: the tether needs no site-packages, and starts in a few milliseconds without them.
        tether = (sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()))
        # A pipe of our own: asyncio's would make `wait` last until every grandchild has closed it too.
        output, inside = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *tether,
                *arguments,
                env=dict(environment),
                stdin=DEVNULL,
                stdout=inside,
                stderr=STDOUT,
                process_group=0,  # else Ctrl-C would reach it from the terminal, past our order of stopping
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(inside)
        return cls(process, output, on_line)

    @property
    def pid(self) -> int:
        """Process id of the command itself (the tether becomes it)."""
        return self._process.pid

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    async def wait(self) -> int:
        """Exit status as subprocess has it (negative: the signal), after the last output line was reported."""
        returncode = await self._process.wait()
        # A grandchild may hold the pipe open for ever; what it writes is not worth waiting for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OUTPUT_GRACE_S):
                await asyncio.shield(self._output)
        self._output.cancel()
        await asyncio.gather(self._output, return_exceptions=True)
        return returncode

    async def terminate(self, deadline_s: float) -> bool:
        """SIGTERM, then SIGKILL after the deadline; whether it ended by itself."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(deadline_s):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, without waiting."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


async def _report(output: int, on_line: Callable[[str], None]) -> None:
    """Report lines from the reading end of a pipe until it closes, or this is cancelled."""
    stream = asyncio.StreamReader()
    pipe = os.fdopen(output, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    try:
        async for line in read_lines(stream):
            on_line(line)
    finally:
        transport.close()


async def read_lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of a stream without their ends, until it closes.  A line never grows beyond `MAX_LINE_BYTES`."""
    rest = b""
    while chunk := await stream.read(READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines.append(rest)
            rest = b""
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r")
