"""A service as a process: it starts, says how it is, and ends in order."""

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from reverie_testing.nats_server import NatsServer, free_port
from reverie_testing.service_process import ServiceProcess

HERE = str(Path(__file__).parent)
Start = Callable[..., ServiceProcess]


@pytest.fixture
def toy(shared_nats_server: NatsServer, tmp_path: Path) -> Iterator[Start]:
    started: list[ServiceProcess] = []

    def start(*, arguments: tuple[str, ...] = (), **environ: str) -> ServiceProcess:
        port = free_port()
        environment = {
            "PYTHONPATH": HERE,
            "REVERIE_NATS__URL": shared_nats_server.url,
            "REVERIE_HEALTH__PORT": str(port),
        } | environ
        service = ServiceProcess(
            "toy_service",
            environment,
            url=f"http://127.0.0.1:{port}",
            log=tmp_path / f"{port}.log",
            arguments=arguments,
        )
        service.start()
        started.append(service)
        return service

    yield start
    for service in started:
        service.kill()


def test_it_gets_ready_and_ends_in_order(toy: Start) -> None:
    service = toy()
    service.wait_ready()
    assert httpx.get(f"{service.url}/health").json() == {"status": "ok"}
    assert "reverie_bus_connected 1.0" in httpx.get(f"{service.url}/metrics").text
    assert httpx.get(f"{service.url}/other").status_code == 404
    assert service.terminate() == 0
    assert "wound down" in service.logs()


def test_an_interrupt_ends_it_like_a_terminate(toy: Start) -> None:
    service = toy()
    service.wait_ready()
    service.send(signal.SIGINT)
    assert service.wait() == 0
    assert "wound down" in service.logs()


def test_it_waits_for_the_bus_and_says_so_until_then(toy: Start, nats_server: NatsServer) -> None:
    nats_server.kill()
    service = toy(REVERIE_NATS__URL=nats_server.url)

    service.wait_log("waiting for NATS")
    answer = httpx.get(f"{service.url}/ready")
    assert answer.status_code == 503
    assert "cannot be reached" in answer.json()["reasons"]["service"]
    nats_server.start()
    service.wait_ready()


def test_it_can_be_ended_while_it_waits_for_the_bus(toy: Start) -> None:
    service = toy(REVERIE_NATS__URL=f"nats://127.0.0.1:{free_port()}")
    service.wait_log("health is served")
    assert service.terminate() == 0


def test_it_can_be_ended_while_it_starts(toy: Start) -> None:
    service = toy(REVERIE_TOY__FAULT="endless start")
    service.wait_log("connected to NATS")
    assert httpx.get(f"{service.url}/ready").json()["reasons"] == {"service": "it is starting"}
    assert service.terminate() == 0


def test_it_is_not_ready_without_its_bus_although_it_lives(toy: Start, nats_server: NatsServer) -> None:
    service = toy(REVERIE_NATS__URL=nats_server.url)
    service.wait_ready()
    nats_server.kill()
    answer = httpx.get(f"{service.url}/ready")
    assert answer.status_code == 503
    assert list(answer.json()["reasons"]) == ["nats"]
    assert httpx.get(f"{service.url}/health").status_code == 200
    nats_server.start()
    service.wait_ready()


def test_a_failed_check_is_named_with_its_reason(toy: Start) -> None:
    service = toy(REVERIE_TOY__FAULT="unhealthy")
    service.wait_log('"event": "ready"')
    answer = httpx.get(f"{service.url}/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == {"spring": "the spring is broken"}


def test_a_service_that_cannot_go_on_winds_down_and_ends_as_failed(toy: Start) -> None:
    service = toy(REVERIE_TOY__FAULT="give up")
    assert service.wait() == 1
    assert "wound down" in service.logs()
    assert "the spring broke for good" in service.logs()


def test_work_that_does_not_end_is_cut_off_at_the_deadline(toy: Start) -> None:
    service = toy(REVERIE_TOY__FAULT="endless drain", REVERIE_DRAIN__DEADLINE_S="0.2")
    service.wait_ready()
    assert service.terminate() == 1
    assert "cut off at drain.deadline_s" in service.logs()


def test_while_it_drains_it_is_not_ready_and_a_second_signal_ends_it_at_once(toy: Start) -> None:
    service = toy(REVERIE_TOY__FAULT="endless drain")
    service.wait_ready()
    service.send(signal.SIGTERM)
    service.wait_log("winding down")
    assert httpx.get(f"{service.url}/ready").json()["reasons"] == {"service": "it is stopping"}
    service.send(signal.SIGTERM)
    assert service.wait() == 1
    assert "second signal" in service.logs()


def test_wrong_settings_end_it_with_code_2_and_one_line(toy: Start) -> None:
    service = toy(REVERIE_TOY__FALT="none")
    assert service.wait() == 2
    assert service.logs() == "reverie toy: REVERIE_TOY__FALT: there is no key 'falt' in 'toy', only fault\n"


def test_a_crash_ends_it_with_code_1_and_a_last_sentence_without_private_text(toy: Start) -> None:
    service = toy(REVERIE_TOY__FAULT="crash")
    assert service.wait() == 1
    last = service.logs().splitlines()[-1]
    assert last == "reverie toy: crashed: RuntimeError, see the log above"


def test_a_port_that_is_taken_is_named_with_its_setting(toy: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = toy(REVERIE_HEALTH__PORT=str(port))
        assert service.wait() == 1
    assert f"port {port} on 127.0.0.1 is taken: choose another health.port" in service.logs()


def test_it_lists_its_settings(toy: Start) -> None:
    service = toy(arguments=("--settings",))
    assert service.wait() == 0
    assert "| `toy.fault` |" in service.logs()
