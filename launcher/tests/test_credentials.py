"""The commands and a server that asks for tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from reverie_launcher.client.credentials import find_token, make_token, own_token
from reverie_launcher.exits import Failure
from reverie_testing.product import free_port, until
from reverie_testing.tiny_models import tiny_sd_pipeline

REVERIE = str(Path(sys.executable).with_name("reverie"))
KEY = "a secret of at least thirty-two bytes"
KEYED = {"REVERIE_AUTH__KEY": KEY}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a platform with a key that has made its first picture."""
    folder = tmp_path_factory.mktemp("keyed")
    model = tiny_sd_pipeline(folder / "model")
    port, log = free_port(), folder / "up.log"
    command = [REVERIE, "up", "--port", str(port), "--data", str(folder / "data"), "--model", str(model)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **KEYED})

    def pictured() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        return "first picture: /" in log.read_text() or "could not be made" in log.read_text()

    try:
        until(pictured, "the first picture", timeout_s=120)
        assert "could not be made" not in log.read_text(), log.read_text()[-3000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def reverie(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONUTF8": "1", **environment}
    return subprocess.run(
        [REVERIE, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_up_with_a_key_makes_its_first_picture_and_lets_in_who_has_a_token(
    server: str, tmp_path: Path
) -> None:
    refused = reverie("jobs", "--url", server, folder=tmp_path)
    assert refused.returncode == 2
    assert "REVERIE_TOKEN" in refused.stderr
    refused = reverie("generate", "a star", "--url", server, folder=tmp_path)
    assert refused.returncode == 2
    assert "REVERIE_TOKEN" in refused.stderr
    assert httpx.get(f"{server}/v1/jobs").status_code == 401

    made = reverie("token", "--sub", "alice", "--minutes", "5", folder=tmp_path, **KEYED)
    token = made.stdout.strip()
    file = tmp_path / "token"
    file.write_text(made.stdout)
    options = ("--size", "64x64", "--steps", "2", "-o", "star.png", "--url", server)
    drawn = reverie("generate", "a star", *options, folder=tmp_path, REVERIE_TOKEN=token)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "star.png").stat().st_size > 0
    listed = reverie("jobs", "--json", "--url", server, "--token-file", str(file), folder=tmp_path)
    assert listed.stdout.count('"jobId"') == 1
    other = reverie("token", "--sub", "bob", folder=tmp_path, **KEYED).stdout.strip()
    listed = reverie("jobs", "--json", "--url", server, folder=tmp_path, REVERIE_TOKEN=other)
    assert listed.returncode == 0
    assert '"jobId"' not in listed.stdout


def test_up_refuses_to_listen_elsewhere_without_a_key(tmp_path: Path) -> None:
    up = reverie(
        "up", "--no-generate", "--host", "0.0.0.0", "--port", str(free_port()), "--model",
        str(tiny_sd_pipeline(tmp_path / "model")), folder=tmp_path,
    )  # fmt: skip
    assert up.returncode == 2
    assert "auth.key" in up.stderr
    assert "auth.open" in up.stderr


@pytest.mark.parametrize(
    ("environment", "options", "said"),
    [
        ({}, {}, "no auth.key"),
        ({"REVERIE_AUTH__KEY": "short"}, {}, "32 bytes"),
        (KEYED, {"lifetime_s": 7200.0}, "60 minutes"),
        (KEYED, {"owner": "a b"}, "cannot be an owner"),
    ],
)
def test_a_token_that_servers_would_refuse_is_not_made(environment, options, said) -> None:
    wanted = {"owner": "alice", "admin": False, "lifetime_s": 60.0} | options
    with pytest.raises(Failure, match=said):
        make_token(environment, None, **wanted)


def test_a_key_may_stand_in_the_file_that_all_services_share(tmp_path: Path) -> None:
    config = tmp_path / "reverie.toml"
    config.write_text(f'[auth]\nkey = "{KEY}"\n[gateway]\nport = 4200\n[inference]\nmodel = "m"\n')
    assert make_token({}, config, owner="alice", admin=True, lifetime_s=60.0).count(".") == 2
    assert own_token({"REVERIE_CONFIG": str(config)}, None) is not None
    assert own_token({}, None) is None


def test_a_token_comes_from_the_file_before_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environment = {"REVERIE_TOKEN": " from-variable "}
    assert find_token(file, environment) == "from-file"
    assert find_token(None, environment) == "from-variable"
    assert find_token(None, {}) is None
    file.write_text("")
    for unusable in (file, tmp_path / "absent"):
        with pytest.raises(Failure, match=r"cannot be read|is empty"):
            find_token(unusable, environment)
