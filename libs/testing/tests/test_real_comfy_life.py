"""A real ComfyUI loses what the fake loses; killed and started by COMFYUI_COMMAND at COMFYUI_URL."""

from collections.abc import AsyncIterator

import pytest

from reverie_testing.comfy_life_conformance import *  # noqa: F403 -- a suite
from reverie_testing.comfy_process import ComfyProcess, comfy_process

PROCESS = comfy_process()
if PROCESS is None:
    pytest.skip("COMFYUI_COMMAND names no server that may be killed", allow_module_level=True)


@pytest.fixture
async def comfy_server() -> AsyncIterator[ComfyProcess]:
    assert PROCESS is not None
    await PROCESS.start()
    try:
        yield PROCESS
    finally:
        await PROCESS.kill()
