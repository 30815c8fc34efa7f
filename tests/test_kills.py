"""Nothing that was acknowledged is lost, whichever process dies."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import nats
import pytest
from websockets.asyncio.client import connect

from reverie_protocol.jobs import Job, JobState
from reverie_testing.product import Product, free_port, started, until

SLOW = {"num_inference_steps": 100, "size": "64x64"}


def running(product: Product, job_id: str) -> bool:
    """Whether the job makes progress on a worker."""
    job = product.job(job_id)
    return job["state"] == "running" and (job["progress"] or 0) > 0


async def history(product: Product, job_id: str) -> list[Job]:
    """Every committed revision of a job, as the server kept it."""
    import msgspec

    client = await nats.connect(product.nats_url())
    try:
        bucket = await client.jetstream().key_value("jobs")
        return [msgspec.json.decode(entry.value, type=Job) for entry in await bucket.history(job_id)]
    finally:
        await client.close()


def test_a_job_whose_worker_is_killed_is_done_once_by_the_restarted_worker(product: Product) -> None:
    job_id = product.submit(**SLOW)
    until(lambda: running(product, job_id), "the job to run")
    product.kill("reverie_inference")
    job = product.finished(job_id)
    assert (job["state"], job["attempt"]) == ("completed", 2)
    states = [revision.state for revision in asyncio.run(history(product, job_id))]
    assert states.count(JobState.COMPLETED) == 1
    assert states[-1] is JobState.COMPLETED
    assert httpx.get(product.url + job["outputs"][0]["url"]).status_code == 200


def test_a_job_survives_the_death_of_nats_server_and_is_not_run_again(product: Product) -> None:
    job_id = product.submit(**SLOW)
    until(lambda: running(product, job_id), "the job to run")
    killed = product.kill("nats-server")
    until(lambda: product.pid_of("nats-server") != killed, "nats-server to come back")
    job = product.finished(job_id)
    assert (job["state"], job["attempt"]) == ("completed", 1)


async def test_a_socket_stays_open_and_hears_the_end_although_nats_server_died(product: Product) -> None:
    async with connect(product.ws_url) as socket:
        submit = {"type": "job:submit", "jobType": "generate", "prompt": "a star", **SLOW}
        await socket.send(json.dumps(submit))
        ended = 0
        killed = False
        async with asyncio.timeout(60):
            while not ended:
                frame = await socket.recv()
                message = json.loads(frame)
                if message["type"] == "job:progress" and not killed:
                    product.kill("nats-server")
                    killed = True
                ended += message["type"] == "job:complete"
    assert killed


def test_jobs_of_a_killed_gateway_go_on_and_can_be_read_from_the_next(product: Product) -> None:
    job_id = product.submit(**SLOW)
    killed = product.kill("reverie_gateway")
    until(lambda: product.pid_of("reverie_gateway") != killed, "the gateway to come back")
    until(lambda: httpx.get(f"{product.url}/ready", timeout=2).status_code == 200, "readiness")
    assert product.finished(job_id)["state"] == "completed"


@pytest.fixture(scope="module")
def second_gateway(product: Product) -> Iterator[str]:
    """Another gateway process on the same NATS and storage."""
    port = free_port()
    storage = next(path for path in product.data.iterdir() if path.name == "storage")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("REVERIE_")},
        "REVERIE_NATS__URL": product.nats_url(),
        "REVERIE_STORAGE__PATH": str(storage),
        "REVERIE_GATEWAY__PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "reverie_gateway"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: httpx.get(f"{url}/ready", timeout=2).status_code == 200, "the second gateway")
        yield url
    finally:
        process.terminate()
        process.wait(20)


async def test_a_socket_on_one_gateway_hears_the_job_that_came_in_through_another(
    product: Product, second_gateway: str
) -> None:
    async with connect(second_gateway.replace("http", "ws") + "/v1/ws") as socket:
        job_id = product.submit(size="64x64")
        types = []
        async with asyncio.timeout(60):
            while "job:complete" not in types:
                message = json.loads(await socket.recv())
                if message.get("jobId") == job_id:
                    types.append(message["type"])
    assert types.count("job:complete") == 1


def test_a_job_of_one_gateway_is_cancelled_through_another(product: Product, second_gateway: str) -> None:
    job_id = product.submit(**SLOW)
    until(lambda: running(product, job_id), "the job to run")
    answer = httpx.delete(f"{second_gateway}/v1/jobs/{job_id}")
    assert answer.status_code == 200
    assert product.finished(job_id)["state"] == "cancelled"


def test_a_restarted_product_knows_its_finished_and_its_waiting_jobs(tmp_path: Path) -> None:
    with started(tmp_path) as first:
        done = first.submit(size="64x64")
        first.finished(done)
        waiting = [first.submit(**SLOW) for _ in range(3)]
    with started(tmp_path) as second:
        assert second.job(done)["state"] == "completed"
        assert [second.finished(job_id)["state"] for job_id in waiting] == ["completed"] * 3
