"""`reverie up` from its start to its end, in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from reverie_testing.nats_server import NatsServer
from reverie_testing.product import Product, free_port, until
from reverie_testing.tiny_models import tiny_sd_pipeline

REVERIE = str(Path(sys.executable).with_name("reverie"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd_pipeline(tmp_path_factory.mktemp("model") / "tiny")


class Up:
    """One `reverie up` in a process group of its own, as a terminal would start it."""

    def __init__(self, folder: Path, model: Path, *arguments: str, **environment: str) -> None:
        self.log = folder / "up.log"
        self.port = free_port()
        self.data = folder / "data"
        options = ("--port", str(self.port), "--data", str(self.data), "--model", str(model), *arguments)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [REVERIE, "up", *options],
                env={**os.environ, "PYTHONUTF8": "1", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.product = Product(f"http://127.0.0.1:{self.port}", self.data, self.log, self.process)

    def await_line(self, text: str) -> None:
        until(lambda: text in self.text or self._fail_if_ended(), f"“{text}” in the output", timeout_s=120)

    def await_children(self) -> list[psutil.Process]:
        names = ("nats-server", "reverie_gateway", "reverie_inference", "reverie_dreams", "reverie_monitor")
        found = until(lambda: (p := self.product.processes()).keys() >= set(names) and p, "all children")
        return [found[name] for name in names]

    @property
    def text(self) -> str:
        return self.log.read_text()

    def ctrl_c(self) -> None:
        """As a terminal sends it: to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        return self.process.wait(90)

    def _fail_if_ended(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"reverie up ended with {self.process.returncode}:\n{self.text}")
        return False


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    """Whatever is started in a test ends with it."""
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def test_it_makes_a_first_picture_and_drains_services_before_nats_on_ctrl_c(
    tmp_path: Path, model: Path, ups: list[Up]
) -> None:
    ups.append(up := Up(tmp_path, model))
    up.await_line("first picture: ")
    up.await_line("/storage/")
    assert Image.open(up.data / "first-picture.png").size == (64, 64)
    address = next(line for line in up.text.splitlines() if line.startswith("address: "))
    assert address == f"address: http://127.0.0.1:{up.port}"
    url = next(line.strip() for line in up.text.splitlines() if "/storage/" in line)
    assert httpx.get(url, timeout=10).content == (up.data / "first-picture.png").read_bytes()
    children = up.await_children()
    up.ctrl_c()
    assert up.wait() == 0, up.text
    assert not [child for child in children if child.is_running()]
    assert up.text.rstrip().endswith("stopped")
    assert "lost the connection to NATS" not in up.text
    assert "Traceback" not in up.text


def test_no_child_outlives_a_launcher_that_is_killed_with_9(
    tmp_path: Path, model: Path, ups: list[Up]
) -> None:
    ups.append(up := Up(tmp_path, model, "--no-generate"))
    children = up.await_children()
    up.process.kill()
    up.process.wait()
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_ctrl_c_while_services_still_start_ends_it_in_order(
    tmp_path: Path, model: Path, ups: list[Up]
) -> None:
    ups.append(up := Up(tmp_path, model, "--no-generate"))
    children = up.await_children()
    up.ctrl_c()
    assert up.wait() == 0, up.text
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert "Traceback" not in up.text


def test_a_second_ctrl_c_ends_everything_at_once(tmp_path: Path, model: Path, ups: list[Up]) -> None:
    ups.append(up := Up(tmp_path, model, "--no-generate"))
    up.await_line("stop: Ctrl-C")
    up.product.submit(num_inference_steps=150, size="256x256")
    until(lambda: "job started" in up.text, "the job to start")
    children = up.await_children()
    up.ctrl_c()
    up.await_line("draining …")
    up.ctrl_c()
    assert up.wait() == 130, up.text
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert "go on at the next start" in up.text


def test_settings_that_a_service_refuses_end_it_with_2_and_the_services_own_words(
    tmp_path: Path, model: Path, ups: list[Up]
) -> None:
    ups.append(up := Up(tmp_path, model, REVERIE_GATEWAY__MAX_QUEUED="many"))
    assert up.wait() == 2, up.text
    last = up.text.rstrip().splitlines()[-1]
    assert last.startswith("reverie: gateway refuses its settings: ")
    assert "REVERIE_GATEWAY__MAX_QUEUED" in last


def test_a_given_nats_server_is_used_and_left_running(
    tmp_path: Path, model: Path, ups: list[Up], nats_server: NatsServer
) -> None:
    ups.append(up := Up(tmp_path, model, "--no-generate", "--nats", nats_server.url))
    up.await_line("stop: Ctrl-C")
    assert f"nats: {nats_server.url}" in up.text
    assert not (up.data / "nats").exists()
    up.ctrl_c()
    assert up.wait() == 0
    assert nats_server.running
