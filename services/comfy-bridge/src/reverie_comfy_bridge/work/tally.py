"""Prometheus metrics of the bridge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from reverie_protocol.instances import ComfyInstance, ComfyStatus

_JOB_BUCKETS = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)


class Tally:
    """Counts jobs by instance and end, and times them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Counter(
            "reverie_comfy_jobs", "Jobs that left an instance", ["instance", "state"], registry=registry
        )
        self._seconds = Histogram(
            "reverie_comfy_job_seconds",
            "From claim to terminal write",
            ["instance"],
            buckets=_JOB_BUCKETS,
            registry=registry,
        )

    def job_ended(self, instance: str, state: str, seconds: float) -> None:
        """A job is over for this instance."""
        self._jobs.labels(instance, state).inc()
        self._seconds.labels(instance).observe(seconds)


class InstanceGauges(Collector):
    """The instances as they are when somebody asks."""

    def __init__(self, instances: Callable[[], Iterable[ComfyInstance]]) -> None:
        self._instances = instances

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See `Collector.collect`."""
        connected = GaugeMetricFamily(
            "reverie_comfy_connected", "1 while an instance is connected and well", labels=["instance"]
        )
        queue = GaugeMetricFamily(
            "reverie_comfy_queue", "Prompts inside, others' too", labels=["instance", "state"]
        )
        lost = GaugeMetricFamily(
            "reverie_comfy_disconnects", "How often an instance was lost", labels=["instance", "reason"]
        )
        for instance in self._instances():
            connected.add_metric([instance.name], float(instance.status is ComfyStatus.CONNECTED))
            queue.add_metric([instance.name, "pending"], float(instance.queue_pending))
            queue.add_metric([instance.name, "running"], float(instance.queue_running))
            for reason, times in instance.disconnects.items():
                lost.add_metric([instance.name, reason], float(times))
        yield from (connected, queue, lost)
