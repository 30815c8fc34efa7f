"""What `reverie up` decides, and what it refuses before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.plan import DEFAULT_PORT, UpOptions, find_model, resolve, worker_name

MODEL = {"REVERIE_INFERENCE__MODEL": "owner/name"}


def refusal(options: UpOptions, environment: dict[str, str]) -> str:
    with pytest.raises(Failure) as failed:
        resolve(options, environment)
    assert failed.value.exit_code is ExitCode.USAGE
    assert failed.value.advice
    return failed.value.sentence


def test_without_a_word_it_listens_on_this_machine_only_and_starts_its_own_nats() -> None:
    plan = resolve(UpOptions(), MODEL)
    assert (plan.host, plan.port, plan.nats) == ("127.0.0.1", DEFAULT_PORT, None)
    assert plan.data == Path.cwd() / "reverie-data"


def test_an_option_goes_over_a_variable_and_a_variable_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "reverie.toml"
    config.write_text('[gateway]\nport = 1001\nhost = "::1"\n[nats]\nurl = "nats://file:4222"\n')
    environment = {**MODEL, "REVERIE_GATEWAY__PORT": "1002", "REVERIE_CONFIG": str(config)}
    assert resolve(UpOptions(port=1003), environment).port == 1003
    plan = resolve(UpOptions(), environment)
    assert (plan.port, plan.host, plan.nats) == (1002, "::1", "nats://file:4222")
    assert resolve(UpOptions(config=config), MODEL).port == 1001


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    assert "--port" in refusal(UpOptions(), {**MODEL, "REVERIE_GATEWAY__PORT": port})


def test_a_variable_that_no_service_knows_is_refused_instead_of_ignored() -> None:
    sentence = refusal(UpOptions(), {**MODEL, "REVERIE_GATWAY__PORT": "1"})
    assert "REVERIE_GATWAY__PORT" in sentence
    assert "REVERIE_GATEWAY__" in sentence


def test_a_section_of_the_file_that_no_service_knows_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "reverie.toml"
    config.write_text("[gatway]\nport = 1\n")
    assert "gatway" in refusal(UpOptions(config=config), MODEL)


def test_a_file_that_is_no_toml_or_not_there_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[gateway\n")
    assert "not valid TOML" in refusal(UpOptions(config=broken), MODEL)
    assert "cannot be read" in refusal(UpOptions(config=tmp_path / "absent.toml"), MODEL)
    assert "cannot be read" in refusal(UpOptions(config=tmp_path), MODEL)


def test_a_model_is_a_path_that_exists_or_a_hugging_face_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_model("my/model", {}) == str(tmp_path / "my" / "model")
    assert find_model("owner/name-1.5", {}) == "owner/name-1.5"
    for absent in ("./absent", "/absent/model", "absent.safetensors", "owner/absent.safetensors", "absent"):
        with pytest.raises(Failure, match="There is no model at"):
            find_model(absent, {})


def test_a_file_of_modes_takes_the_place_of_a_single_model(tmp_path: Path) -> None:
    file = tmp_path / "modes.yml"
    assert "no file of modes" in refusal(UpOptions(modes=file), MODEL)
    file.touch()
    plan = resolve(UpOptions(modes=file), MODEL)
    assert (plan.modes, plan.model) == (str(file), "")
    assert resolve(UpOptions(), {"REVERIE_INFERENCE__MODES": str(file)}).modes == str(file)
    assert "do not go together" in refusal(UpOptions(modes=file, model="owner/name"), MODEL)


def test_the_built_in_model_comes_from_the_folder_that_the_variable_names(tmp_path: Path) -> None:
    environment = {"REVERIE_BUILTIN_MODELS": str(tmp_path)}
    assert "--model" in refusal(UpOptions(), environment)
    (tmp_path / "text-to-image").mkdir()
    assert resolve(UpOptions(), environment).model == str(tmp_path / "text-to-image")


def test_the_built_in_super_resolution_goes_with_every_model_that_brings_none(tmp_path: Path) -> None:
    environment = {"REVERIE_BUILTIN_MODELS": str(tmp_path / "builtin")}
    plain, own = tmp_path / "plain", tmp_path / "own"
    for folder in (plain, own):
        folder.mkdir()
    (own / "reverie.json").write_text('{"super_resolution": "upscalers"}')
    assert resolve(UpOptions(model=str(plain)), environment).super_resolution is None
    weights = tmp_path / "builtin" / "super-resolution"
    weights.mkdir(parents=True)
    assert resolve(UpOptions(model=str(plain)), environment).super_resolution == str(weights)
    assert resolve(UpOptions(model="owner/name"), environment).super_resolution == str(weights)
    assert resolve(UpOptions(model=str(own)), environment).super_resolution is None
    given = environment | {"REVERIE_INFERENCE__SUPER_RESOLUTION": "/mine"}
    assert resolve(UpOptions(model=str(plain)), given).super_resolution == "/mine"


def test_the_worker_is_where_the_monitor_is() -> None:
    assert resolve(UpOptions(model="owner/name"), {}).node is None
    assert resolve(UpOptions(model="owner/name"), {"REVERIE_MONITOR__NODE": "attic"}).node == "attic"


def test_a_worker_has_one_name_per_data_directory_that_nats_accepts() -> None:
    one, two = worker_name(Path("/data/one")), worker_name(Path("/data/two"))
    assert one == worker_name(Path("/data/one")) != two
    assert set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def test_a_comfyui_server_brings_the_bridge_and_without_one_there_is_none() -> None:
    assert "comfy-bridge" not in {service.name for service in resolve(UpOptions(), MODEL).services}
    plan = resolve(UpOptions(comfy=("http://gpu:8188", "fast=http://other:8188/path=x")), MODEL)
    assert plan.comfy == ("comfy=http://gpu:8188", "fast=http://other:8188/path=x")
    assert "comfy-bridge" in {service.name for service in plan.services}
    told = resolve(UpOptions(), {**MODEL, "REVERIE_COMFY__WORKFLOWS": "/workflows"})
    assert "comfy-bridge" in {service.name for service in told.services}
    assert "no ComfyUI server" in refusal(UpOptions(comfy=("gpu:8188",)), MODEL)


def test_the_bridges_instances_are_those_of_the_command_line() -> None:
    plan = resolve(UpOptions(comfy=("http://gpu:8188",)), {**MODEL, "REVERIE_COMFY__INSTANCES": "a=http://b"})
    assert plan.comfy == ("comfy=http://gpu:8188",)
