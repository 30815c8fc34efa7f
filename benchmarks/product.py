"""What the benchmarks share: the product in an empty folder, and percentiles."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def figure_ms(
    name: str,
    seconds: list[float],
    *,
    targets: dict[str, float],
    above: list[float] | None = None,
    **more: Any,
) -> None:
    """Print one JSON line in milliseconds: percentiles, those above a baseline if one is given, and targets."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    measured = {key: percentile(seconds, share) * 1e3 for key, share in shares.items()}
    base = {key: percentile(above, share) * 1e3 if above else 0.0 for key, share in shares.items()}
    row = {
        "figure": name,
        "count": len(seconds),
        **{f"{key}_ms": round(value, 2) for key, value in measured.items()},
        **({f"{key}_above_ms": round(measured[key] - base[key], 2) for key in shares} if above else {}),
        **({"targets_ms": targets} if targets else {}),
        **(
            {"met": all(measured[key] - base[key] <= most for key, most in targets.items())}
            if targets
            else {}
        ),
        **more,
    }
    print(json.dumps(row, ensure_ascii=False), flush=True)
