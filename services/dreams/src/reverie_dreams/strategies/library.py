"""The strategies there are: ours, and those that other packages bring."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final

import structlog

from reverie_dreams.strategies.port import Strategy
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError

GROUP: Final = "reverie.strategies"

log = structlog.get_logger(__name__)


def load_strategies() -> dict[str, Strategy]:
    """All strategies by name; one that cannot be loaded is left out, and the log says why."""
    strategies: dict[str, Strategy] = {}
    for point in entry_points(group=GROUP):
        try:
            strategies[point.name] = point.load()()
        except Exception:
            log.exception("a strategy cannot be loaded", strategy=point.name)
    return strategies


def require_strategy(name: str, strategies: Mapping[str, Strategy]) -> None:
    """ReverieError `invalid_field` naming those there are."""
    if name not in strategies:
        allowed = f"must be one of {', '.join(sorted(strategies))}"
        raise ReverieError(
            ErrorCode.INVALID_FIELD,
            f"strategy: {allowed}",
            fields=[FieldError(("strategy",), allowed, "choice")],
        )
