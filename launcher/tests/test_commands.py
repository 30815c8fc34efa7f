"""The commands against a real platform: real gateway, real worker, real nats-server, a tiny real model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from reverie_launcher.__main__ import run
from reverie_testing.product import Product, free_port, started, until
from reverie_testing.tiny_models import tiny_sd_pipeline

REVERIE = str(Path(sys.executable).with_name("reverie"))
SMALL = ("--size", "64x64", "--steps", "4")
Here = Callable[..., tuple[int, str, str]]
LONG = ("--size", "64x64", "--steps", "150")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("commands")
    model = tiny_sd_pipeline(folder / "model")
    with started(folder, "--model", str(model)) as running:
        yield running


class Shell:
    """Runs `reverie` in a folder, for one server."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "REVERIE_URL": url, "PYTHONUTF8": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [REVERIE, *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors


@pytest.fixture
def shell(product: Product, tmp_path: Path) -> Shell:
    return Shell(product.url, tmp_path)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Where tests run in the background Ctrl-C is ignored, and what they start would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def running_job(product: Product) -> str:
    """Id of the one job that runs, once it makes progress."""

    def find() -> str | None:
        jobs = httpx.get(f"{product.url}/v1/jobs?state=running", timeout=10).json()["jobs"]
        return next((job["jobId"] for job in jobs if job["step"]), None)

    return str(until(find, "a job to run"))


def test_generate_saves_the_picture_under_a_telling_name_and_prints_only_its_path(shell: Shell) -> None:
    code, output, errors = shell.run("generate", "A red circle!", *SMALL, "--seed", "7")
    assert code == 0, errors
    assert output == "a-red-circle-7.png\n"
    assert Image.open(shell.folder / "a-red-circle-7.png").size == (64, 64)
    assert "seed 7" in errors
    code, output, _ = shell.run("generate", "A red circle!", *SMALL, "--seed", "7")
    assert output == "a-red-circle-7-1.png\n"
    pictures = [path.read_bytes() for path in sorted(shell.folder.iterdir())]
    assert pictures[0] == pictures[1]


def test_generate_prints_json_alone_for_programs(shell: Shell, product: Product) -> None:
    code, output, _ = shell.run("generate", "x", *SMALL, "--seed", "3", "-o", "out.png", "--json")
    result = json.loads(output)
    assert code == 0
    assert (result["state"], result["file"], result["meta"]["seed"]) == ("completed", "out.png", 3)
    assert result["url"].startswith(product.url)
    assert product.job(result["jobId"])["state"] == "completed"


def test_generate_writes_the_picture_to_stdout_on_request(shell: Shell) -> None:
    command = [REVERIE, "generate", "x", *SMALL, "-o", "-"]
    answer = subprocess.run(
        command, env=shell._environment, cwd=shell.folder, capture_output=True, timeout=120, check=True
    )
    assert Image.open(io.BytesIO(answer.stdout)).format == "PNG"
    assert list(shell.folder.iterdir()) == []


def test_an_output_that_takes_no_more_is_one_sentence_and_not_a_success(shell: Shell) -> None:
    for command in (["generate", "x", *SMALL, "-o", "-"], ["jobs"], ["--version"]):
        with Path("/dev/full").open("wb") as full:
            answer = subprocess.run(
                [REVERIE, *command],
                env=shell._environment,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
                check=False,
            )
        assert answer.returncode == 1, answer.stderr
        assert "The output cannot be written: No space left on device." in answer.stderr
        assert "defect" not in answer.stderr
        assert "Exception" not in answer.stderr


def test_super_resolution_enlarges_pictures_of_any_model(shell: Shell) -> None:
    code, output, errors = shell.run("generate", "x", *SMALL, "--superres", "-o", "big.jpg")
    assert code == 0, errors
    picture = Image.open(shell.folder / output.strip())
    assert (picture.size, picture.format) == ((256, 256), "JPEG")


def test_every_option_reaches_the_job(shell: Shell, product: Product) -> None:
    options = ["--guidance", "2.5", "--negative", "blur", "--scheduler", "euler", "--priority", "urgent"]
    code, output, errors = shell.run("generate", "x", *SMALL, *options, "--seed", "1", "--json")
    assert code == 0, output + errors
    job = product.job(json.loads(output)["jobId"])
    assert job["priority"] == 0
    sent = {"size": "64x64", "num_inference_steps": 4, "guidance_scale": 2.5, "negative_prompt": "blur"}
    assert {**sent, "scheduler": "euler", "seed": 1}.items() <= job["params"].items()


def test_ctrl_c_cancels_the_job_and_ends_with_130(shell: Shell, product: Product) -> None:
    process = shell.start("generate", "x", *LONG)
    job_id = running_job(product)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("reverie: Interrupted. The job is cancelled.\n")
    assert product.finished(job_id)["state"] == "cancelled"


def test_a_job_that_somebody_else_cancels_ends_generate_with_5(shell: Shell, product: Product) -> None:
    process = shell.start("generate", "x", *LONG, "--json")
    job_id = running_job(product)
    code, output, errors = shell.run("cancel", job_id[:12])
    assert code == 0, errors
    assert output == f"{job_id}: stops at its next step\n"
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 5
    error = json.loads(output)["error"]
    assert (error["code"], error["jobId"]) == ("cancelled", job_id)
    assert shell.run("cancel", job_id) == (0, f"{job_id}: cancelled\n", "")


def test_a_wait_that_is_too_long_ends_with_4_and_leaves_the_job(shell: Shell, product: Product) -> None:
    code, output, _ = shell.run("generate", "x", *LONG, "--timeout", "1", "--json")
    assert code == 4
    error = json.loads(output)["error"]
    assert error["code"] == "wait_timeout"
    assert product.job(error["jobId"])["state"] in ("queued", "running")
    shell.run("cancel", error["jobId"])
    product.finished(error["jobId"])


def test_generate_outlives_a_killed_gateway_and_makes_one_job_only(shell: Shell, product: Product) -> None:
    before = set(job_ids(shell))
    process = shell.start("generate", "x", *LONG, "--json", "-o", "x.png")
    job_id = running_job(product)
    product.kill("reverie_gateway")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    assert json.loads(output)["jobId"] == job_id
    assert (shell.folder / "x.png").exists()
    assert set(job_ids(shell)) - before == {job_id}
    assert "gateway │ was killed by SIGKILL; starting it again in" in product.log.read_text()


def test_a_worker_that_dies_is_named_and_started_again(product: Product) -> None:
    killed = product.kill("reverie_inference")
    until(lambda: "inference │ is ready again" in product.log.read_text(), "the worker to be back")
    assert "inference │ was killed by SIGKILL; starting it again in" in product.log.read_text()
    assert product.pid_of("reverie_inference") != killed


def job_ids(shell: Shell) -> list[str]:
    _, output, _ = shell.run("jobs", "--json", "--limit", "200")
    return [job["jobId"] for job in json.loads(output)]


def test_jobs_lists_the_newest_first_and_by_state(shell: Shell) -> None:
    _, output, _ = shell.run("generate", "the newest", *SMALL, "--json")
    newest = json.loads(output)["jobId"]
    code, output, _ = shell.run("jobs", "--limit", "1")
    assert code == 0
    heading, row = output.splitlines()
    assert heading.split() == ["JOB", "STATE", "LANE", "PROGRESS", "AGE", "PROMPT"]
    assert row.startswith(newest)
    assert row.rstrip().endswith("the newest")
    assert shell.run("jobs", "--state", "queued")[1] == "There are no queued jobs.\n"


def test_status_tells_in_words_and_in_json_and_ends_with_0_when_ready(shell: Shell, product: Product) -> None:
    code, output, _ = shell.run("status")
    assert code == 0
    assert product.url in output
    assert "ready" in output
    code, output, _ = shell.run("status", "--json")
    status = json.loads(output)
    assert (code, status["ready"], status["system"]["workers"]) == (0, True, 1)


@pytest.fixture
def here(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: the same code, without the start of another Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REVERIE_URL", product.url)

    def run_here(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(arguments)
        output, errors = capfd.readouterr()
        return code, output, errors

    return run_here


def sentence_of(answer: tuple[int, str, str], code: int) -> str:
    """The one sentence on stderr of a command that ended with this code."""
    returncode, output, errors = answer
    assert returncode == code, output + errors
    assert output == ""
    sentence = errors.strip().splitlines()[-1]
    assert sentence.startswith("reverie: ")
    assert "Traceback" not in errors
    return sentence


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--steps", "151"), "--steps"),
        (("--size", "65x64"), "--size"),
        (("--seed", "-1"), "--seed"),
        (("--mode", "absent"), "absent"),
        (("--scheduler", "absent"), "scheduler"),
        (("--priority", "fast"), "--priority"),
        (("-o", "/absent/x.png"), "/absent"),
        (("-o", "x.jpg"), "PNG"),
        (("-o", "x.webp"), ".webp"),
        (("--steps", "many"), "--steps"),
        (("--absent",), "--absent"),
    ],
)
def test_a_wrong_option_ends_with_2_and_a_sentence_that_names_it(
    here: Here, arguments: tuple[str, ...], names: str
) -> None:
    assert names in sentence_of(here("generate", "x", *arguments), 2)
    code, output, _ = here("generate", "x", *arguments, "--json")
    assert code == json.loads(output)["exitCode"] == 2


@pytest.mark.parametrize("command", [("generate", "x"), ("jobs",), ("status",), ("cancel", "abc")])
def test_without_a_server_every_command_ends_with_3_and_says_how_to_start_one(
    here: Here, command: tuple[str, ...]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    sentence = sentence_of(here(*command, "--url", url), 3)
    assert url in sentence
    assert "reverie up" in sentence
    code, output, _ = here(*command, "--url", url, "--json")
    assert code == json.loads(output)["exitCode"] == 3


@pytest.mark.parametrize("address", ["ftp://x", "http://", "http://[::1", "http://host:port", ""])
def test_an_address_that_is_none_ends_with_2(here: Here, address: str) -> None:
    assert repr(address) in sentence_of(here("status", "--url", address), 2)


def test_something_else_that_listens_there_is_not_taken_for_a_server(here: Here) -> None:
    program = "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)\n"
    program += "print(s.server_port, flush=True); s.serve_forever()"
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert other.stdout is not None
    url = f"http://127.0.0.1:{other.stdout.readline().strip()}"
    try:
        for command in (("generate", "x"), ("jobs",), ("status",)):
            assert "no Reverie server would" in sentence_of(here(*command, "--url", url), 3)
    finally:
        other.kill()
        other.wait()


def test_an_unknown_job_cannot_be_cancelled(here: Here) -> None:
    assert "absent" in sentence_of(here("cancel", "absent"), 2)


def test_what_cannot_be_a_job_id_is_named_and_sent_nowhere(here: Here) -> None:
    assert "'../x' is no job id" in sentence_of(here("cancel", "../x"), 2)
    code, output, _ = here("cancel", "../x", "--json")
    assert code == json.loads(output)["exitCode"] == 2


def test_without_a_command_the_usage_is_printed_and_it_ends_with_2(here: Here) -> None:
    code, output, errors = here()
    assert code == 2
    assert "Usage: " in output
    assert "reverie: " not in errors


def test_a_second_up_on_the_same_data_is_refused_and_names_the_first(shell: Shell, product: Product) -> None:
    arguments = ("--data", str(product.data), "--port", str(free_port()), "--model", "owner/name")
    sentence = sentence_of(shell.run("up", *arguments), 2)
    assert str(product.process.pid) in sentence
    assert "--data" in sentence


def test_a_port_that_is_taken_is_named_with_who_has_it(shell: Shell, product: Product) -> None:
    port = product.url.rpartition(":")[2]
    sentence = sentence_of(shell.run("up", "--port", port, "--model", "owner/name"), 2)
    assert f"Port {port} is taken by process {product.pid_of('reverie_gateway')}" in sentence
    assert "--port" in sentence
    assert list(shell.folder.iterdir()) == []


def test_help_documents_the_exit_codes(shell: Shell) -> None:
    code, output, _ = shell.run("--help")
    assert code == 0
    assert "130 ended by" in output
