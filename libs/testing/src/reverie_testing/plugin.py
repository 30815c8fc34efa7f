"""Fixtures for every test in the workspace (a pytest plugin)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reverie_testing.clock import VirtualClock
from reverie_testing.nats_server import NatsServer
from reverie_testing.s3_server import S3Server, running_s3_server


@pytest.fixture
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A running nats-server of this test's own: kill it, freeze it, wipe it."""
    yield from _running(tmp_path_factory)


@pytest.fixture(scope="module")
def shared_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A running nats-server for the tests of one module, which leave it running."""
    yield from _running(tmp_path_factory)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3-compatible server for all tests that ask for one; each keeps to a prefix of its own."""
    yield from running_s3_server()


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that stands still until the test advances it."""
    return VirtualClock()


def _running(folders: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(folders.mktemp("nats"))
    server.start()
    yield server
    server.stop()
