"""A crash point does nothing until it is armed, and then once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reverie_runtime.crash_points import CRASH_POINTS, crash_point

PROGRAM = """
from reverie_runtime.crash_points import crash_point
crash_point("here")
print("passed", flush=True)
"""


def run(folder: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != CRASH_POINTS}
    environment |= {CRASH_POINTS: str(folder)} if folder else {}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )


def test_a_process_outside_of_fault_tests_passes_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CRASH_POINTS, raising=False)
    crash_point("anything")


def test_an_armed_point_kills_the_first_process_that_comes_by_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("KILL")
    (tmp_path / "here").write_text("KILL")
    first, second = run(tmp_path), run(tmp_path)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "")
    assert (second.returncode, second.stdout) == (0, "passed\n")
    assert (tmp_path / "elsewhere").exists()


def test_an_armed_point_can_freeze_instead(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("STOP")
    environment = {**os.environ, CRASH_POINTS: str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE
    ) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.read() == b"passed\n"
        assert process.wait() == 0
