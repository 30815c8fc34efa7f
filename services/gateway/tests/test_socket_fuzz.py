"""Random messages made from the types of the protocol: each is answered, and no socket is closed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: The long run, 100,000 messages with an eye on memory, is this script without arguments.
SCRIPT = Path(__file__).parents[3] / "tests" / "long" / "socket_fuzz.py"


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_of_many_random_messages_is_answered_and_the_socket_stays(gateway, stage, seed):
    await stage.busy_worker()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), "--url", gateway.url, "--messages", "2000", "--seed", str(seed)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-5000:]
    seen = json.loads(said)
    assert (seen["internal"], seen["unanswered"]) == (0, 0)
    types = {"job:ack", "pong", "hello:ok", "resumed", "storage:put:ok", "service_unavailable"}
    assert types <= seen["answers"].keys()
    # Whether a job is done before its cancel comes is a race.
    assert {"job:complete", "job:error"} & seen["answers"].keys()
