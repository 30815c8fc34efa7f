"""What a ComfyUI loses when it dies, and how it dies; for servers that a test may kill.

A test module makes a fixture `comfy_server` that yields a `ComfyServer` that runs and that nobody else uses, and
imports the tests: `from reverie_testing.comfy_life_conformance import *`.
"""

# ruff: noqa: D103 -- these are tests: their names are the sentences

from __future__ import annotations

import asyncio
from typing import Protocol

import httpx
import pytest

from reverie_testing.comfy_client import PATIENCE_S, comfy_at, loop_graph, node, picture_graph


class ComfyServer(Protocol):
    """A server under test."""

    @property
    def url(self) -> str:
        """Where it answers."""

    async def start(self) -> None:
        """Come up; return when it answers."""

    async def kill(self) -> None:
        """Go away without warning; idempotent."""


async def test_a_killed_server_drops_its_sockets_without_a_close_frame(comfy_server: ComfyServer) -> None:
    async with comfy_at(comfy_server.url) as comfy, comfy.socket("me") as sock:
        await comfy_server.kill()
        async with asyncio.timeout(PATIENCE_S):
            await sock.connection.wait_closed()
        assert sock.connection.close_code == 1006
        with pytest.raises(httpx.ConnectError):
            await comfy.queue()


async def test_a_restart_loses_queue_and_history_and_counts_from_zero_but_keeps_outputs(
    comfy_server: ComfyServer,
) -> None:
    graph = picture_graph()
    graph["4"] = node("PreviewImage", images=["1", 0])
    async with comfy_at(comfy_server.url) as comfy:
        _, entry = await comfy.run(graph)
        running = await comfy.submit(loop_graph(1000))
        waiting = await comfy.submit(picture_graph())
        await comfy_server.kill()
        await comfy_server.start()
        assert await comfy.queue() == ([], [])
        assert await comfy.get("/history") == {}
        for prompt_id in (running, waiting):
            assert await comfy.get(f"/history/{prompt_id}") == {}
        kept = {response.url.params["type"]: response.status_code for response in await comfy.files(entry)}
        assert kept == {"output": 200, "temp": 404}
        assert (await comfy.post("/prompt", {"prompt": graph})).json()["number"] == 0


async def test_a_dead_worker_answers_everything_and_runs_nothing_until_a_restart(
    comfy_server: ComfyServer,
) -> None:
    graph = loop_graph(2)
    graph["3"] = node("RecExit", image=["1", 0], message="out")
    graph["4"] = node("SaveImage", images=["3", 0], filename_prefix="x")
    async with comfy_at(comfy_server.url) as comfy:
        async with comfy.socket("me") as sock:
            stuck = await comfy.submit(graph, "me")
            await sock.until(lambda frame: frame[0] == "executing" and frame[1]["node"] == "3")
            never = await comfy.submit(picture_graph(), "me")
            await sock.statuses(4)
            assert (await comfy.post("/interrupt", {"prompt_id": stuck})).status_code == 200
            if comfy.features.jobs_cancel:
                assert (await comfy.post(f"/api/jobs/{stuck}/cancel")).json() == {"cancelled": True}
            assert await comfy.queue() == ([stuck], [never])
            assert await comfy.get("/prompt") == {"exec_info": {"queue_remaining": 2}}
            assert await comfy.get(f"/history/{stuck}") == {}
        await comfy_server.kill()
        await comfy_server.start()
        _, entry = await comfy.run(picture_graph())
        assert entry["status"]["completed"] is True


async def test_a_client_id_that_is_a_list_ends_the_server(comfy_server: ComfyServer) -> None:
    async with comfy_at(comfy_server.url) as comfy, comfy.socket("me") as sock:
        await comfy.post("/prompt", {"prompt": picture_graph(), "client_id": 5})
        await comfy.idle()
        await comfy.get("/queue")
        deadly = {"prompt": picture_graph(), "client_id": ["x"]}
        await asyncio.gather(comfy.post("/prompt", deadly), return_exceptions=True)
        async with asyncio.timeout(PATIENCE_S):
            await sock.connection.wait_closed()
        assert sock.connection.close_code == 1006
