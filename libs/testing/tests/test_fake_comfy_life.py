"""The fake ComfyUI loses what real ones lose, as each recorded version."""

from collections.abc import AsyncIterator

import pytest

from reverie_testing.comfy_life_conformance import *  # noqa: F403 -- a suite
from reverie_testing.fake_comfy import RECORDED, FakeComfy


@pytest.fixture(params=RECORDED)
async def comfy_server(request: pytest.FixtureRequest) -> AsyncIterator[FakeComfy]:
    async with FakeComfy(request.param, pace=0.2) as fake:
        yield fake
