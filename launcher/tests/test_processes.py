"""One child process: its leash, its lines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from reverie_launcher import processes
from reverie_launcher.processes import MAX_LINE_BYTES, ChildProcess, read_lines

TETHER = Path(processes.__file__).with_name("tether.py")
PARENT = """
import asyncio, os, sys
from reverie_launcher.processes import ChildProcess
async def main():
    child = await ChildProcess.start((sys.executable, "-c", {program!r}), os.environ, print)
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""
SLEEP = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"


def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        psutil.Process(pid).wait(20)
    except psutil.NoSuchProcess:
        return


def test_a_child_dies_with_a_parent_that_is_killed_with_9() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(program=SLEEP)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    gone(pid)


def test_a_watched_command_dies_with_its_parent_where_the_kernel_cannot_be_asked() -> None:
    script = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, {str(TETHER)!r}, '--watch', str(os.getpid()),"
        f" sys.executable, '-c', {SLEEP!r}])\n"
        "print(child.pid, flush=True)\nchild.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    watcher = until_watched(pid)
    parent.kill()
    parent.wait()
    gone(pid)
    gone(watcher)


def until_watched(pid: int) -> int:
    """Process id of the watcher that the tether left, once it is there."""
    for _ in range(2000):
        children = psutil.Process(pid).children()
        if children:
            return children[0].pid
        os.sched_yield()
    pytest.fail("no watcher was left")


def test_the_command_keeps_the_pid_and_its_exit_code() -> None:
    command = [sys.executable, "-c", "import os, sys; print(os.getpid()); sys.exit(41)"]
    child = subprocess.Popen(
        [sys.executable, str(TETHER), str(os.getpid()), *command], stdout=subprocess.PIPE, text=True
    )
    output, _ = child.communicate(timeout=20)
    assert int(output) == child.pid
    assert child.returncode == 41


def test_a_command_that_is_not_there_is_named() -> None:
    command = [sys.executable, str(TETHER), str(os.getpid()), "/nowhere/at-all"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert answer.returncode == 127
    assert answer.stderr == "cannot run /nowhere/at-all: No such file or directory\n"


async def test_a_terminals_ctrl_c_does_not_reach_the_child() -> None:
    lines: list[str] = []
    child = await ChildProcess.start((sys.executable, "-c", SLEEP), os.environ, lines.append)
    try:
        assert os.getpgid(child.pid) != os.getpgid(0)
    finally:
        child.kill()
        async with asyncio.timeout(20):
            assert await child.wait() == -signal.SIGKILL


async def test_every_line_of_output_is_reported_before_the_end_is() -> None:
    lines: list[str] = []
    program = "import sys\nfor n in range(500): print(n)\nprint('äöü', file=sys.stderr)"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    child = await ChildProcess.start((sys.executable, "-c", program), environment, lines.append)
    async with asyncio.timeout(20):
        assert await child.wait() == 0
    assert lines == [*map(str, range(500)), "äöü"]


async def test_a_grandchild_that_keeps_the_pipe_open_does_not_keep_us_waiting() -> None:
    program = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid)"
    lines: list[str] = []
    child = await ChildProcess.start((sys.executable, "-u", "-c", program), os.environ, lines.append)
    async with asyncio.timeout(20):
        assert await child.wait() == 0
    os.kill(int(lines[0]), signal.SIGKILL)


async def test_a_line_that_never_ends_is_cut_instead_of_growing_without_bound() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"x" * (3 * MAX_LINE_BYTES) + b"\nshort\r\nlast")
    stream.feed_eof()
    lines = [line async for line in read_lines(stream)]
    assert "".join(lines[:-2]) == "x" * (3 * MAX_LINE_BYTES)
    assert max(map(len, lines)) <= 2 * MAX_LINE_BYTES
    assert lines[-2:] == ["short", "last"]


async def test_bytes_that_are_no_text_do_not_stop_the_lines() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"\xff\xfe\nfine\n")
    stream.feed_eof()
    assert [line async for line in read_lines(stream)] == ["\ufffd\ufffd", "fine"]
