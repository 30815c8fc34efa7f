"""Fixtures of the tests that run the product as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reverie_testing.product import Product, started


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """One running product for the tests of a module."""
    with started(tmp_path_factory.mktemp("product")) as running:
        yield running
