"""A real ComfyUI at COMFYUI_URL passes the suite that the fake passes: `COMFYUI_URL=… make test-comfy`."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reverie_testing.comfy_conformance import *  # noqa: F403 -- a suite
from reverie_testing.comfy_process import comfy_process
from reverie_testing.comfy_socket_conformance import *  # noqa: F403 -- a suite

URL = os.environ.get("COMFYUI_URL")
if URL is None:
    pytest.skip("COMFYUI_URL names no real ComfyUI", allow_module_level=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def comfy_url() -> AsyncIterator[str]:
    """The server's address; started for the time of the tests if COMFYUI_COMMAND says how."""
    process = comfy_process()
    if process is None:
        assert URL is not None
        yield URL.rstrip("/")
        return
    await process.start()
    try:
        yield process.url
    finally:
        await process.kill()
