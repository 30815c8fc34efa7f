"""Figures of the dreams service for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from reverie_dreams.hosting import Hosting


class _Collector:
    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting

    def collect(self) -> Iterator[Metric]:
        """What the sessions of this process are doing now."""
        actors = tuple(self._hosting.actors.values())
        yield GaugeMetricFamily("reverie_dream_sessions", "Sessions at work here", value=len(actors))
        flying = sum(len(actor.search.flying) for actor in actors)
        yield GaugeMetricFamily("reverie_dream_drafts_in_flight", "Drafts that wait or run", value=flying)
        family = CounterMetricFamily(
            "reverie_dream_candidates", "Candidates of the sessions at work here", labels=("outcome",)
        )
        for outcome in ("scored", "pruned", "dropped", "merged", "rendered"):
            total = sum(getattr(actor.search.stats, outcome) for actor in actors)
            family.add_metric((outcome,), total)
        yield family


def register(registry: CollectorRegistry, hosting: Hosting) -> None:
    """Let a registry show them."""
    registry.register(_Collector(hosting))
