"""A stranger reads the OpenAPI document and tries everything that it says, and much that it does not.

For a long run: `REVERIE_FUZZ_EXAMPLES=300 pytest services/gateway/tests/test_openapi_fuzz.py`, and
`REVERIE_FUZZ_SEED` for another course than the usual one.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import time
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import issue
from reverie_jobs.transitions import Refused, Superseded, complete
from reverie_protocol.jobs import JobMeta, JobType, Output, SuperResolutionParams
from reverie_runtime.bus.port import BusError
from reverie_storage.port import url_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = os.environ.get("REVERIE_FUZZ_EXAMPLES", "2")
SEED = os.environ.get("REVERIE_FUZZ_SEED", "4")
SECRET = "a secret of at least thirty-two bytes"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "ignored_auth",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
)
#: Answers in these are no failure: something that is not there (501), or nobody who does such work (503), and a
#: wait that ran out (504); each has to be documented for its endpoint all the same.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503, 504]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 405, 406, 409, 413, 415, 416, 422, 429, 501, 503, 504]
"""


def picture(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(buffer, kind)
    return buffer.getvalue()


async def do_next(worker):
    """Do a job at once, whatever it is."""
    job = await worker.next_job()
    held = await worker.claim(job.id)
    params, sr = job.params, isinstance(job.params, SuperResolutionParams)
    kind = getattr(params, "out_format" if sr else "superres_format", "png")
    key = await worker.storage.put(picture(kind), content_type=f"image/{kind}")
    outputs = (Output(url=url_of(key), key=key, content_type=f"image/{kind}", width=16, height=16),)
    meta = JobMeta(seed=getattr(params, "seed", 0) or 0, backend="bench", sr=sr, mode="tiny")
    await worker._end(held, lambda job, now: complete(job, held, outputs=outputs, meta=meta, now=now))


async def do_everything(worker):
    while True:
        with contextlib.suppress(BusError, TimeoutError, Refused, Superseded):  # cancelled meanwhile
            await do_next(worker)


async def fuzz(gateway, folder, *only):
    """Run schemathesis as an administrator against a gateway; its exit code and what it said."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    token = issue(SECRET, owner="stranger", now=time.time(), lifetime_s=3600, admin=True)
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run"),
        *(f"{gateway.url}/schema/openapi.json", "--url", gateway.url),
        # One worker: Python 3.11 parses no source in two threads at once, and hypothesis does.
        *("--header", f"Authorization:Bearer {token}", "--request-timeout", "20", "--workers", "1"),
        *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--continue-on-failure"),
        *("--max-examples", EXAMPLES, "--seed", SEED, "--no-shrink", *only),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "160"},
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fuzzed(stage):
    """A gateway that asks for tokens, with a worker that does everything and a bridge that agrees to everything."""
    await stage.bridge()
    gateway = await stage.gateway(generate_wait_s=3.0, auth=AuthSettings(key=SECRET))
    worker = await stage.worker(job_types=(JobType.GENERATE, JobType.SR, JobType.SWITCH, JobType.COMFY))
    working = asyncio.create_task(do_everything(worker))
    yield gateway
    working.cancel()


async def test_every_answer_is_one_that_the_document_has(fuzzed, tmp_path):
    # An event stream has no end, and gates that are closed at random make all others wait.
    without = ("--exclude-path", "/v1/events", "--exclude-operation-id", "changeQueue")
    code, said = await fuzz(fuzzed, tmp_path, *without)
    assert code == 0, said[-8000:]
    metrics = (await fuzzed.http.get("/metrics")).text
    assert 'status="500"' not in metrics


async def test_the_gates_of_the_queue_answer_as_documented_too(fuzzed, tmp_path):
    code, said = await fuzz(fuzzed, tmp_path, "--include-operation-id", "changeQueue")
    assert code == 0, said[-8000:]
