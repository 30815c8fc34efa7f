"""The fake ComfyUI passes what real ones pass, as each recorded version and as one between them."""

from collections.abc import AsyncIterator

import pytest

from reverie_testing.comfy_conformance import *  # noqa: F403 -- a suite
from reverie_testing.comfy_socket_conformance import *  # noqa: F403 -- a suite
from reverie_testing.fake_comfy import RECORDED, FakeComfy


@pytest.fixture(params=[*RECORDED, "0.3.64"])
async def comfy_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    async with FakeComfy(request.param, pace=0.2) as fake:
        yield fake.url
