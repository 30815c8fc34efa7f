"""What the benchmarks share: the product in an empty folder, and percentiles."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reverie_testing.product import Product, started

BUILTIN_MODEL = Path(__file__).resolve().parent.parent / "models" / "builtin" / "text-to-image"


@contextlib.contextmanager
def running_product(*, model: Path | str = BUILTIN_MODEL) -> Iterator[Product]:
    """Start everything with an empty data folder, yield when ready, stop it afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="reverie-benchmark-") as folder,
        started(Path(folder), "--model", str(model)) as product,
    ):
        yield product


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
