"""One cluster of real processes for the tests of a module."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reverie_launcher.chaos.cluster import Cluster, running
from reverie_launcher.plan import find_model


@pytest.fixture(scope="session")
def model() -> str:
    """The built-in model."""
    return find_model(None, {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory, model: str) -> AsyncIterator[Cluster]:
    """Two gateways and three workers without a model, which are back soon after each death."""
    folder = tmp_path_factory.mktemp("cluster")
    async with running(folder, gateways=2, workers=0, light=3, model=model, rng=random.Random()) as started:
        yield started
