"""A real ComfyUI at COMFYUI_URL passes the suite that the fake passes: `COMFYUI_URL=… make test-comfy`."""

import os

import pytest

from reverie_testing.comfy_conformance import *  # noqa: F403 -- a suite
from reverie_testing.comfy_socket_conformance import *  # noqa: F403 -- a suite

URL = os.environ.get("COMFYUI_URL")
if URL is None:
    pytest.skip("COMFYUI_URL names no real ComfyUI", allow_module_level=True)


@pytest.fixture
def comfy_url() -> str:
    assert URL is not None
    return URL.rstrip("/")
