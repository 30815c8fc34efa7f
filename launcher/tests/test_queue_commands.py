"""`reverie queue`, `priority` and `retry` against a real platform with a tiny real model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from reverie_launcher.__main__ import run
from reverie_testing.product import Product, started
from reverie_testing.tiny_models import tiny_sd_pipeline


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("queue")
    model = tiny_sd_pipeline(folder / "model")
    with started(folder, "--model", str(model)) as running:
        yield running


@pytest.fixture
def reverie(product: Product, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Runs a command; its exit code and what it printed."""
    monkeypatch.setenv("REVERIE_URL", product.url)

    def reverie(*arguments: str) -> tuple[int, str]:
        code = run(arguments)
        return code, capsys.readouterr().out

    return reverie


def submit(product: Product, **fields: object) -> str:
    body = {"jobType": "generate", "prompt": "x", "size": "64x64", "num_inference_steps": 2, **fields}
    answer = httpx.post(f"{product.url}/v1/jobs", json=body, timeout=20)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


def test_a_paused_queue_shows_what_waits_lets_jobs_be_moved_and_goes_on_when_resumed(product, reverie):
    assert reverie("queue", "pause") == (0, "queue paused\n")
    ids = [submit(product) for _ in range(3)]
    assert reverie("priority", ids[2][:12], "normal", "--front") == (0, f"{ids[2]}: normal, next\n")
    assert reverie("priority", ids[0], "batch") == (0, f"{ids[0]}: batch, 2 before it\n")
    code, output = reverie("queue")
    heading, columns, *rows = output.splitlines()
    assert (code, heading) == (0, "0 running, 3 waiting; queue paused")
    assert columns.split()[:4] == ["JOB", "TYPE", "STATE", "LANE"]
    assert [row.split()[0] for row in rows] == [ids[2], ids[1], ids[0]]
    shown = json.loads(reverie("queue", "--json")[1])
    assert (shown["pending"], shown["paused"]) == (3, True)
    assert reverie("queue", "resume") == (0, "everything is open\n")
    for job_id in ids:
        assert product.finished(job_id)["state"] == "completed"
    assert reverie("queue")[1] == "0 running, 0 waiting; everything is open\n"


def test_a_drained_lane_takes_nothing_new_and_gates_are_named(product, reverie):
    code, output = reverie("queue", "drain", "--lane", "batch", "--worker", "elsewhere")
    assert (code, output) == (0, "lane batch draining, worker elsewhere draining\n")
    body = {"jobType": "generate", "prompt": "x", "priority": "batch"}
    assert httpx.post(f"{product.url}/v1/jobs", json=body, timeout=20).json()["code"] == "draining"
    assert reverie("queue", "resume", "--lane", "batch", "--worker", "elsewhere")[0] == 0


def test_a_cancelled_job_is_retried_and_a_completed_one_is_not(product, reverie):
    job_id = submit(product, notBefore=time.time() + 86_400)
    assert reverie("cancel", job_id)[0] == 0
    code, output = reverie("retry", job_id)
    assert code == 0
    assert product.finished(output.strip())["retryOf"] == job_id
    assert reverie("retry", job_id) == (0, output)
    assert reverie("retry", output.strip())[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("priority", "x", "soon"),
        ("priority", "x", "batch", "--front", "--back"),
        ("queue", "drain", "--lane", "fast"),
        ("queue", "--url", "127.0.0.1:1", "pause"),
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(product, reverie, arguments):
    assert reverie(*arguments) == (2, "")
    assert httpx.get(f"{product.url}/v1/queue", timeout=20).json()["controls"]["queue"] == {}


def test_modes_are_listed_switched_and_read_again(product, reverie):
    code, listed = reverie("modes")
    assert code == 0
    assert listed.splitlines()[1].split()[:3] == ["*", "model", "model"]
    assert "in memory" in listed
    assert reverie("modes", "--switch", "model") == (0, "model: it is so already\n")
    assert reverie("modes", "--reload") == (0, "1 modes: model\n")
    assert reverie("modes", "--switch", "nothing")[0] == 2
    assert json.loads(reverie("modes", "--json")[1])["default_mode"] == "model"
