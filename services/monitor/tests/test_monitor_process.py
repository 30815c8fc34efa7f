"""The service as operators run it: a process, told by environment variables, ended by a signal."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from reverie_testing.nats_server import NatsServer
from reverie_testing.product import free_port, until
from reverie_testing.service_process import ServiceProcess

RECORDING = Path(__file__).parent / "recordings/a100-mig.json"


@pytest.fixture
def environment(shared_nats_server: NatsServer, tmp_path: Path) -> dict[str, str]:
    return {
        "REVERIE_NATS__URL": shared_nats_server.url,
        "REVERIE_STORAGE__PATH": str(tmp_path),
        "REVERIE_HEALTH__PORT": str(free_port()),
        "REVERIE_LOG__FORMAT": "json",
    }


def process(environment: dict[str, str], folder: Path) -> ServiceProcess:
    url = f"http://127.0.0.1:{environment['REVERIE_HEALTH__PORT']}"
    return ServiceProcess("reverie_monitor", environment, url=url, log=folder / "monitor.log")


def test_it_runs_alone_serves_its_figures_and_ends_at_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["REVERIE_MONITOR__RECORDING"] = str(RECORDING)
    with process(environment, tmp_path) as monitor:
        monitor.wait_ready()
        assert httpx.get(f"{monitor.url}/health", timeout=10).json() == {"status": "ok"}
        text = httpx.get(f"{monitor.url}/metrics", timeout=10).text
        assert 'reverie_gpu_memory_total_bytes{gpu="0",name="NVIDIA A100-SXM4-80GB"' in text
        assert monitor.terminate() == 0


def test_it_waits_for_a_bus_that_is_not_there_yet(tmp_path: Path, environment: dict[str, str]) -> None:
    environment["REVERIE_NATS__URL"] = f"nats://127.0.0.1:{free_port()}"
    with process(environment, tmp_path) as monitor:
        until(lambda: "NATS" in httpx.get(f"{monitor.url}/ready", timeout=5).text, "the reason at /ready")
        assert httpx.get(f"{monitor.url}/ready", timeout=5).status_code == 503
        assert monitor.terminate() == 0


def test_a_wrong_setting_ends_it_with_code_2_and_one_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["REVERIE_MONITOR__SERVICES"] = "http://127.0.0.1:4200/ready"
    monitor = process(environment, tmp_path)
    monitor.start()
    assert monitor.wait() == 2
    assert "is not name=http://host:port/ready" in monitor.logs()
    assert len(monitor.logs().strip().splitlines()) == 1


def test_a_recording_that_is_broken_is_said_and_does_not_end_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    broken = tmp_path / "recording.json"
    broken.write_text("{")
    environment["REVERIE_MONITOR__RECORDING"] = str(broken)
    with process(environment, tmp_path) as monitor:
        monitor.wait_ready()
        monitor.wait_log("the GPUs cannot be read")
        broken.write_text(json.dumps(json.loads(RECORDING.read_text())))
        until(
            lambda: "NVIDIA A100" in httpx.get(f"{monitor.url}/metrics", timeout=10).text,
            "the GPU of the mended recording",
        )
        assert monitor.terminate() == 0
