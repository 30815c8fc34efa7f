"""compose.yaml without a container engine: each service starts, as a process, with exactly its environment.

What an image or a network would give is replaced by stated rules (`Stage.local`), and by nothing else: a variable
that is missing from compose.yaml is missing here too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from reverie_gateway.settings import Settings
from reverie_runtime.settings import SettingsError, load_settings
from reverie_testing.nats_server import NatsServer
from reverie_testing.product import free_port, until

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
#: The services that are ours to build; nats comes as an image.
BUILT = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


class Stage:
    """What stands in for images, network and volumes: one nats-server, one folder, free ports."""

    def __init__(self, nats: NatsServer, folder: Path) -> None:
        self.nats = nats
        self.folder = folder
        self._ports: dict[tuple[str, str], str] = {}

    def environment(self, name: str) -> dict[str, str]:
        """Environment of a service: image and compose.yaml, with container names made local."""
        given = {**image_environment(name), **BUILT[name].get("environment", {})}
        return {key: self.local(name, key, str(value)) for key, value in given.items()}

    def local(self, name: str, key: str, value: str) -> str:
        """A value as it has to be outside a container.  Ports are one per service, so that two do not meet."""
        value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)  # compose, where the variable is not set
        if key.endswith("__PORT"):
            return self._ports.setdefault((name, value), str(free_port()))
        value = value.replace("nats://nats:4222", self.nats.url).replace("0.0.0.0", "127.0.0.1")
        value = value.replace("/venv/bin", str(Path(sys.executable).parent)).replace("$PATH", os.defpath)
        value = re.sub(r"^/models/", f"{ROOT}/models/", value)
        return re.sub(r"^/data/", f"{self.folder}/", value)

    def url(self, name: str) -> str:
        """Where the health check of compose.yaml asks, with the local port."""
        check = BUILT[name]["healthcheck"]["test"]
        address, port, path = re.fullmatch(r"(http://127\.0\.0\.1):(\d+)(/.*)", check[-1]).groups()
        return f"{address}:{self._ports[name, port]}{path}"

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """The service as its image starts it, in a folder of its own."""
        command = image_entrypoint(name)
        log = self.folder / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *command[1:]],
                env=self.environment(name),
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail(f"{name} did not stop after SIGTERM:\n{log.read_text()[-3000:]}")

    def await_healthy(self, name: str, process: subprocess.Popen[str]) -> None:
        """Wait until the health check of compose.yaml passes."""

        def healthy() -> bool:
            assert process.poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
            return httpx.get(self.url(name), timeout=5).status_code == 200

        until(healthy, f"{name} to be ready", timeout_s=120)


def stage_lines(target: str) -> list[str]:
    """Instructions of a build target of the Dockerfile and of the stages that it stands on, outermost last."""
    stages = re.split(r"(?m)^(?=FROM )", DOCKERFILE)[1:]
    for text in stages:
        parent, name = re.match(r"FROM (\S+) AS (\S+)", text).groups()
        if name == target:
            return (stage_lines(parent) if "{" not in parent else []) + text.splitlines()
    raise AssertionError(f"the Dockerfile has no target {target}")


def image_environment(name: str) -> dict[str, str]:
    """What ENV instructions give to every container of the service's image."""
    lines = stage_lines(BUILT[name]["build"]["target"])
    return dict(pair.split("=", 1) for line in lines if line.startswith("ENV ") for pair in line[4:].split())


def image_entrypoint(name: str) -> list[str]:
    """The command of the service's image."""
    lines = stage_lines(BUILT[name]["build"]["target"])
    return json.loads(
        next(line for line in reversed(lines) if line.startswith("ENTRYPOINT ")).split(" ", 1)[1]
    )


@pytest.fixture
def stage(nats_server: NatsServer, tmp_path: Path) -> Stage:
    (tmp_path / "storage").mkdir()
    return Stage(nats_server, tmp_path)


@pytest.mark.parametrize("name", BUILT)
def test_a_service_starts_alone_with_exactly_the_environment_of_compose(stage: Stage, name: str) -> None:
    stage.environment(name)
    assert BUILT[name]["healthcheck"]["test"][:3] == ["CMD", "python", "/probe.py"]
    probe = [sys.executable, str(ROOT / "deploy/probe.py"), stage.url(name)]
    assert subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 1
    with stage.running(name) as process:
        stage.await_healthy(name, process)
        assert subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0


def test_all_services_are_ready_together(stage: Stage) -> None:
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(stage.running(name)) for name in BUILT}
        for name, process in processes.items():
            stage.await_healthy(name, process)
        gateway = stage.url("gateway").removesuffix("/ready")
        until(
            lambda: httpx.get(f"{gateway}/v1/system/status", timeout=5).json()["workers"] == 1,
            "the gateway to see the worker",
        )


@pytest.mark.parametrize("name", BUILT)
def test_a_misspelt_variable_ends_a_service_with_code_2_and_its_name(stage: Stage, name: str) -> None:
    answer = subprocess.run(
        [sys.executable, *image_entrypoint(name)[1:]],
        env={**stage.environment(name), "REVERIE_NATS__ULR": "nats://nats:4222"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 2
    assert "REVERIE_NATS__ULR" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_services_run_without_privileges_come_back_and_get_time_to_drain() -> None:
    assert "USER reverie" in stage_lines("run")
    for name, service in BUILT.items():
        assert "run" in DOCKERFILE.split(f"AS {name}\n")[0].splitlines()[-1], (
            "built on the stage without root"
        )
        assert service["restart"] == "unless-stopped"
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        grace_s = int(service["stop_grace_period"].removesuffix("s"))
        assert grace_s > float(service["environment"]["REVERIE_DRAIN__DEADLINE_S"])


def test_only_the_gateway_is_published_and_only_to_this_machine() -> None:
    published = {
        name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service
    }
    assert published == {"gateway": ["${REVERIE_PUBLISH:-127.0.0.1:4200}:4200"]}


def test_the_gateway_of_compose_serves_without_a_key_only_because_it_is_told_to() -> None:
    given = BUILT["gateway"]["environment"]
    assert given["REVERIE_AUTH__KEY"] == "${REVERIE_AUTH__KEY:-}", "a key of the user's goes to the gateway"
    address = {"REVERIE_GATEWAY__HOST": given["REVERIE_GATEWAY__HOST"]}
    with pytest.raises(SettingsError, match="set auth"):
        load_settings(Settings, config=None, environ=address)
    load_settings(
        Settings, config=None, environ=address | {"REVERIE_AUTH__OPEN": given["REVERIE_AUTH__OPEN"]}
    )


def test_nats_of_compose_reads_its_configuration_and_syncs_every_write(tmp_path: Path) -> None:
    configuration = (ROOT / "deploy/nats-server.conf").read_text()
    assert "sync_interval: always" in configuration
    file = tmp_path / "nats-server.conf"
    file.write_text(configuration)
    binary = Path(sys.executable).with_name("nats-server")
    answer = subprocess.run(
        [binary, "-t", "-c", file], capture_output=True, text=True, timeout=30, check=False
    )
    assert answer.returncode == 0, answer.stderr


def compose_command() -> list[str] | None:
    """`docker compose`, or the older `docker-compose`; None where neither is installed."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        answer = subprocess.run([*command, "version"], capture_output=True, timeout=30, check=False)
        if answer.returncode == 0:
            return command
    return None


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_docker_compose_accepts_the_files(files: tuple[str, ...]) -> None:
    command = compose_command()
    if command is None:
        pytest.skip("`docker compose` is not installed here")
    arguments = [argument for file in files for argument in ("-f", file)]
    answer = subprocess.run(
        [*command, *arguments, "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
