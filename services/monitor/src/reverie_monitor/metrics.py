"""The latest round as Prometheus gauges: a GPU that is gone leaves none behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from reverie_monitor.alerts.book import AlertBook
from reverie_monitor.measuring import Round
from reverie_monitor.workers import WorkerRegistry
from reverie_protocol.nodes import Gpu, GpuState

_GB = 1024**3
_GPU_LABELS = ("gpu", "uuid", "name")
_GPU_FIGURES: tuple[tuple[str, str, Callable[[Gpu], float | None]], ...] = (
    ("reverie_gpu_up", "1 while the GPU answers", lambda gpu: float(gpu.state is GpuState.OK)),
    ("reverie_gpu_memory_total_bytes", "Memory", lambda gpu: _bytes(gpu.total_gb)),
    ("reverie_gpu_memory_used_bytes", "Memory that is not free", lambda gpu: _bytes(gpu.used_gb)),
    (
        "reverie_gpu_utilization_ratio",
        "Time with a kernel running",
        lambda gpu: _ratio(gpu.utilization_percent),
    ),
    ("reverie_gpu_temperature_celsius", "Temperature", lambda gpu: gpu.temperature_c),
    ("reverie_gpu_power_watts", "Power drawn", lambda gpu: gpu.power_w),
    ("reverie_gpu_power_limit_watts", "Power limit in force", lambda gpu: gpu.power_limit_w),
    ("reverie_gpu_ecc_corrected_errors", "Since the driver was loaded", lambda gpu: gpu.ecc_corrected),
    ("reverie_gpu_ecc_uncorrected_errors", "Since the driver was loaded", lambda gpu: gpu.ecc_uncorrected),
)


class RoundCollector(Collector):
    """Reads the latest round when it is asked."""

    def __init__(self, latest: Callable[[], Round | None], workers: WorkerRegistry, book: AlertBook) -> None:
        self._latest = latest
        self._workers = workers
        self._book = book

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges."""
        alerts = GaugeMetricFamily("reverie_alerts", "Alerts that last", labels=("code", "level"))
        counts: dict[tuple[str, str], int] = {}
        for alert in self._book.open:
            kind = (alert.code, alert.level.value)
            counts[kind] = counts.get(kind, 0) + 1
        for (code, level), count in sorted(counts.items()):
            alerts.add_metric((code, level), count)
        yield alerts
        yield _gauge("reverie_workers", "Workers that take jobs", len(self._workers.ready()))
        found = self._latest()
        if found is not None:
            yield from _of_gpus(found.node.gpus)
            yield from _of_host(found)

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing before it is asked."""
        return []


def register(
    registry: CollectorRegistry,
    latest: Callable[[], Round | None],
    workers: WorkerRegistry,
    book: AlertBook,
) -> None:
    """Serve the gauges with `/metrics`."""
    registry.register(RoundCollector(latest, workers, book))


def _of_gpus(gpus: tuple[Gpu, ...]) -> Iterator[GaugeMetricFamily]:
    for name, meaning, figure in _GPU_FIGURES:
        family = GaugeMetricFamily(name, meaning, labels=_GPU_LABELS)
        for gpu in gpus:
            value = figure(gpu)
            if value is not None:
                family.add_metric((str(gpu.index), gpu.uuid, gpu.name), value)
        yield family
    throttled = GaugeMetricFamily(
        "reverie_gpu_throttled", "1 for each reason in force", labels=(*_GPU_LABELS, "reason")
    )
    for gpu in gpus:
        for reason in gpu.throttled:
            throttled.add_metric((str(gpu.index), gpu.uuid, gpu.name, reason.value), 1)
    yield throttled


def _of_host(found: Round) -> Iterator[GaugeMetricFamily]:
    host, disk = found.node.host, found.node.disk
    if host is not None:
        yield _gauge("reverie_host_cpu_ratio", "Share of all cores at work", host.cpu_percent / 100)
        yield _gauge("reverie_host_load", "Load average of one minute", host.load)
        total, available = host.memory_total_gb * _GB, host.memory_available_gb * _GB
        yield _gauge("reverie_host_memory_total_bytes", "Memory", total)
        yield _gauge("reverie_host_memory_available_bytes", "Memory that can still be had", available)
    if disk is not None:
        yield _gauge("reverie_storage_disk_total_bytes", "Size of the file system", disk.total_gb * _GB)
        yield _gauge("reverie_storage_disk_free_bytes", "Free on the file system", disk.free_gb * _GB)
    yield _gauge("reverie_storage_ok", "1 while the store can be written", float(not found.storage_reason))
    services = GaugeMetricFamily("reverie_service_ready", "1 while its /ready says so", labels=("service",))
    for service in found.node.services:
        services.add_metric((service.name,), float(service.ok))
    yield services


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)


def _bytes(gigabytes: float | None) -> float | None:
    return None if gigabytes is None else gigabytes * _GB


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
