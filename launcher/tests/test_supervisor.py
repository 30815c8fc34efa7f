"""Supervision of real processes: small Python programs that crash, refuse, drain or do not."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from reverie_launcher.supervisor import Child, Launch, SettingsRefused, Supervisor

READY_THEN_WAIT = """
import signal, sys, pathlib, threading
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
def stop(*_):
    with (folder / "stopped").open("a") as file:
        file.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(folder / f"{name}.ready").touch()
while True:
    signal.pause()
"""
CRASH_TWICE = """
import pathlib, sys
starts = pathlib.Path(sys.argv[2]) / "starts"
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
if count < 2:
    print("about to crash")
    sys.exit(7)
"""
REFUSE = "import sys; print('one'); print('gateway.port: 99999 is no port', file=sys.stderr); sys.exit(2)"
DEAF = READY_THEN_WAIT.replace(
    "signal.signal(signal.SIGTERM, stop)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
)


class Recorder:
    """Keeps what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self._changed = asyncio.Condition()

    def line(self, child: str, text: str) -> None:
        self._note("line", child, text)

    def notice(self, child: str, text: str) -> None:
        self._note("notice", child, text)

    def warning(self, child: str, text: str) -> None:
        self._note("warning", child, text)

    def of(self, kind: str) -> list[tuple[str, str]]:
        return [(child, text) for told, child, text in self.told if told == kind]

    def _note(self, kind: str, child: str, text: str) -> None:
        self.told.append((kind, child, text))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


MakeChild = Callable[..., Child]


@pytest.fixture
def make_child(tmp_path: Path, recorder: Recorder) -> MakeChild:
    def make(program: str, name: str = "child", *, drain_s: float = 20.0) -> Child:
        flag = tmp_path / f"{name}.ready"

        async def ready() -> str | None:
            return None if flag.exists() else "it has not said so"

        def prepare() -> Launch:
            flag.unlink(missing_ok=True)
            return Launch((sys.executable, "-c", program, name, str(tmp_path)), os.environ, ready)

        return Child(name, prepare, reporter=recorder, drain_s=drain_s, rng=random.Random(1))

    return make


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.kill()
    await supervisor.stop()


async def test_start_returns_when_every_child_of_the_stage_is_ready(
    supervisor: Supervisor, make_child: MakeChild, tmp_path: Path
) -> None:
    children = [make_child(READY_THEN_WAIT, name) for name in ("one", "two")]
    async with asyncio.timeout(20):
        await supervisor.start(children)
    assert all(child.ready.is_set() for child in children)
    assert {path.name for path in tmp_path.glob("*.ready")} == {"one.ready", "two.ready"}


async def test_a_child_that_crashes_is_started_again_and_its_end_is_named(
    supervisor: Supervisor, make_child: MakeChild, recorder: Recorder
) -> None:
    child = make_child(CRASH_TWICE + READY_THEN_WAIT)
    async with asyncio.timeout(20):
        await supervisor.start([child])
    assert child.starts == 3
    warnings = recorder.of("warning")
    assert warnings[0] == ("child", "exited with code 7; starting it again in 0.1 s")
    assert len(warnings) == 2
    assert recorder.of("line") == [("child", "about to crash")] * 2
    assert ("child", "is ready again") in recorder.of("notice")


async def test_a_child_that_is_killed_is_started_again_and_the_signal_is_named(
    supervisor: Supervisor, make_child: MakeChild, recorder: Recorder
) -> None:
    child = make_child(READY_THEN_WAIT)
    async with asyncio.timeout(20):
        await supervisor.start([child])
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        while child.starts < 2:
            await asyncio.sleep(0.01)
        await child.ready.wait()
    assert recorder.of("warning") == [("child", "was killed by SIGKILL; starting it again in 0.1 s")]


async def test_a_child_that_refuses_its_settings_is_not_started_again_and_its_last_line_is_told(
    supervisor: Supervisor, make_child: MakeChild
) -> None:
    child = make_child(REFUSE)
    with pytest.raises(SettingsRefused, match=r"gateway\.port: 99999 is no port") as refused:
        async with asyncio.timeout(20):
            await supervisor.start([child])
    assert refused.value.child == "child"
    assert child.starts == 1


async def test_a_refusal_after_the_start_shows_in_failed(
    supervisor: Supervisor, make_child: MakeChild, tmp_path: Path
) -> None:
    refuse_later = READY_THEN_WAIT.replace("sys.exit(0)", "print('changed my mind'); sys.exit(2)")
    child = make_child(refuse_later)
    async with asyncio.timeout(20):
        await supervisor.start([child])
        assert child.pid is not None
        os.kill(child.pid, signal.SIGTERM)
        with pytest.raises(SettingsRefused, match="changed my mind"):
            await supervisor.failed


async def test_the_last_stage_is_drained_before_the_one_it_stands_on(
    supervisor: Supervisor, make_child: MakeChild, tmp_path: Path
) -> None:
    async with asyncio.timeout(20):
        await supervisor.start([make_child(READY_THEN_WAIT, "nats")])
        await supervisor.start([make_child(READY_THEN_WAIT, "gateway")])
        await supervisor.stop()
    assert (tmp_path / "stopped").read_text().split() == ["gateway", "nats"]


async def test_a_child_that_does_not_drain_is_killed_at_its_deadline_and_named(
    supervisor: Supervisor, make_child: MakeChild, recorder: Recorder
) -> None:
    async with asyncio.timeout(20):
        await supervisor.start([make_child(DEAF, drain_s=0.2)])
        await supervisor.stop()
    assert recorder.of("warning") == [("child", "did not drain within 0 s and was killed")]


async def test_a_child_that_waits_for_its_restart_is_not_started_any_more_once_stopped(
    supervisor: Supervisor, make_child: MakeChild, recorder: Recorder
) -> None:
    child = make_child("import sys; sys.exit(9)")
    start = asyncio.create_task(supervisor.start([child]))
    async with asyncio.timeout(20):
        while len(recorder.of("warning")) < 3:
            await asyncio.sleep(0.01)
        start.cancel()
        await supervisor.stop()
        starts = child.starts
        await asyncio.gather(start, return_exceptions=True)
    assert child.starts == starts
    assert child.pid is None


async def test_killing_ends_children_that_would_not_drain(
    supervisor: Supervisor, make_child: MakeChild
) -> None:
    child = make_child(DEAF, drain_s=3600)
    async with asyncio.timeout(20):
        await supervisor.start([child])
        draining = asyncio.create_task(supervisor.stop())
        await asyncio.sleep(0)
        supervisor.kill()
        await draining
    assert child.pid is None
