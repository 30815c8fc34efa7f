"""Every row of the channel map names what there is, and nothing there is goes unnamed."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from reverie_gateway.openapi.channel_map import MESSAGES_BEYOND, ROUTES_BEYOND, ROWS
from reverie_gateway.openapi.channel_map_page import (
    channel_map_page,
    is_beyond,
    served_routes,
    state_of,
)
from reverie_gateway.session import REQUESTS
from reverie_protocol.client_messages import Ping
from reverie_protocol.registry import CLIENT_MESSAGES, MESSAGE_SERVICE, SERVER_MESSAGES, Service

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[3]
MESSAGES = {**CLIENT_MESSAGES, **SERVER_MESSAGES}
#: A message of each kind that the dreams service will answer.
DREAMS = (
    {"type": "dream:start", "prompt": "x", "duration": 60, "temperature": 1, "strategy": "slerp"},
    {"type": "dream:stop"},
    {"type": "dream:top", "limit": 5, "min_score": 0.5},
    {"type": "dream:recent", "limit": 5},
    {"type": "dream:guide", "params": {"temperature": 0.2}},
)


@cache
def named_in(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}


async def test_there_are_rows_1_to_34():
    assert [row.number for row in ROWS] == list(range(1, 35))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
async def test_a_row_names_routes_messages_and_tests_that_there_are(row):
    assert row.messages or row.http
    assert set(row.messages) <= MESSAGES.keys()
    for test in row.tests:
        path, _, name = test.partition("::")
        assert name in named_in(path), test
    if state_of(row).startswith("works"):
        assert not row.http or row.http in served_routes()
        assert all(
            CLIENT_MESSAGES[type_] in (*REQUESTS, Ping) for type_ in row.messages if type_ in CLIENT_MESSAGES
        )


async def test_no_message_and_no_route_is_left_out():
    named = {type_ for row in ROWS for type_ in row.messages}
    assert not named & MESSAGES_BEYOND.keys()
    assert named | MESSAGES_BEYOND.keys() == MESSAGES.keys()
    rows = {row.http for row in ROWS}
    for route in served_routes().keys() - rows:
        assert is_beyond(route), route
    exact = {route for route in ROUTES_BEYOND if not route.endswith("*")}
    assert exact <= served_routes().keys() - rows


@pytest.mark.parametrize("type_", MESSAGES)
async def test_a_message_says_which_rows_ask_for_it(type_):
    said = {int(number) for number in re.findall(r"\d+", (MESSAGES[type_].__doc__ or "").split(":", 1)[0])}
    assert said <= {row.number for row in ROWS if type_ in row.messages}


async def test_the_page_has_every_row_and_says_how_it_stands():
    lines = channel_map_page().splitlines()
    for row in ROWS:
        [line] = [line for line in lines if line.startswith(f"| {row.number} | ")]
        assert row.http in line
        assert all(type_ in line for type_ in row.messages)
        assert state_of(row) in line


async def test_every_dream_message_is_answered_that_its_service_does_not_run(gateway, worker):
    assert {message["type"] for message in DREAMS} == {
        type_ for type_, cls in CLIENT_MESSAGES.items() if MESSAGE_SERVICE[cls] is Service.DREAMS
    }
    async with gateway.socket() as client:
        for number, message in enumerate(DREAMS):
            for given in (number, f"mine-{number}"):
                await client.send(message | {"id": given})
                error = await client.until("error")
                assert (error["id"], error["code"], error["retryable"]) == (
                    given,
                    "service_unavailable",
                    True,
                )
                assert "dreams" in error["message"]
        await client.settle()


async def test_a_comfy_job_is_understood_and_refused_while_nobody_does_such_jobs(gateway, worker):
    flat = {"workflowId": "w", "params": {"a": 1}, "inputImage": "fileRef:" + "0" * 32}
    async with gateway.socket() as client:
        for number, fields in enumerate((flat, {"params": flat}, {"workflowId": "w"})):
            await client.send({"type": "job:submit", "id": number, "jobType": "comfy", **fields})
            error = await client.until("error")
            assert (error["id"], error["code"], error["retryable"]) == (number, "comfy_unreachable", True)
        await client.send({"type": "job:submit", "id": 9, "jobType": "comfy", "params": {"a": 1}})
        error = await client.until("error")
        assert (error["id"], error["code"]) == (9, "invalid_field")
    assert not worker.mirror.queued


async def test_the_first_message_has_what_the_map_says(gateway, worker):
    async with gateway.socket() as client:
        status = await client.next()
    assert status["type"] == "system:status"
    assert status["mode"] == "tiny"
    assert status["storage"] == {"ok": True, "provider": "filesystem"}
    assert {"pending", "running", "jobs"} <= status["queueState"].keys()
    assert {"device", "total_gb", "used_gb", "available_gb", "usage_percent"} <= status["vram"].keys()


async def test_health_is_for_load_balancers_and_names_nothing_else(gateway):
    answer = await gateway.http.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
