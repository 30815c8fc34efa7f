"""What of a round of measurements could be an alert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reverie_monitor.alerts.rules import Condition, Rule
from reverie_monitor.settings import AlertSettings
from reverie_protocol.instances import AlertCode
from reverie_protocol.nodes import Gpu, GpuState, NodeStatus, ThrottleReason


class Conditions:
    """The rules as they are set, and the conditions of a round under them."""

    def __init__(self, settings: AlertSettings) -> None:
        hold_s = settings.hold_s
        self._settings = settings
        self._vram = Rule(
            code=AlertCode.VRAM_HIGH,
            warning=settings.vram_percent,
            margin=settings.vram_margin_percent,
            unit="%",
            hold_s=hold_s,
        )
        self._corrected = Rule(code=AlertCode.GPU_ECC, warning=settings.ecc_corrected)
        self._uncorrected = Rule(code=AlertCode.GPU_ECC, critical=settings.ecc_uncorrected)
        self._memory = Rule(
            code=AlertCode.MEMORY_HIGH,
            warning=settings.memory_percent,
            critical=settings.memory_critical_percent,
            margin=settings.memory_margin_percent,
            unit="%",
            hold_s=hold_s,
        )
        self._disk = Rule(
            code=AlertCode.DISK_LOW,
            warning=settings.disk_free_percent,
            critical=settings.disk_free_critical_percent,
            margin=settings.disk_margin_percent,
            unit="%",
            falling=True,
            hold_s=hold_s,
        )
        self._throttled = Rule(code=AlertCode.GPU_THROTTLED, warning=1.0, hold_s=hold_s)
        self._lost = Rule(code=AlertCode.GPU_LOST, critical=1.0)
        self._unreadable = Rule(code=AlertCode.GPU_UNREADABLE, warning=1.0, hold_s=hold_s)
        self._storage = Rule(code=AlertCode.STORAGE_BROKEN, critical=1.0)
        self._gone = Rule(code=AlertCode.WORKER_GONE, critical=1.0)
        self._down = Rule(code=AlertCode.SERVICE_DOWN, critical=1.0, hold_s=settings.service_down_s)

    def of(
        self, node: NodeStatus, *, storage_reason: str, silence: Mapping[str, float]
    ) -> Iterator[Condition]:
        """All conditions; `storage_reason` is empty for a store that works, `silence` in seconds by worker."""
        for gpu in node.gpus:
            yield from self._of_gpu(gpu)
        yield _fact(self._unreadable, "", bool(node.driver_error), node.driver_error)
        yield from self._of_host(node)
        yield _fact(self._storage, "", bool(storage_reason), f"the store cannot be written: {storage_reason}")
        for name, seconds in silence.items():
            gone = seconds >= self._settings.worker_silent_s
            yield _fact(self._gone, name, gone, f"worker {name} has been silent for {seconds:.0f} s")
        for service in node.services:
            down = f"{service.name} is not ready: {service.reason}"
            yield _fact(self._down, service.name, not service.ok, down)

    def _of_gpu(self, gpu: Gpu) -> Iterator[Condition]:
        name = f"GPU {gpu.index} ({gpu.name})"
        yield _fact(self._lost, gpu.uuid, gpu.state is GpuState.LOST, f"{name} is lost: {gpu.detail}")
        if gpu.state is GpuState.LOST:
            return
        if gpu.total_gb and gpu.used_gb is not None:
            percent = round(100 * gpu.used_gb / gpu.total_gb, 1)
            text = f"{name}: {percent:g} % of {gpu.total_gb:g} GB are in use"
            yield Condition(rule=self._vram, subject=gpu.uuid, value=percent, what=text)
        text = f"{name} is at {gpu.temperature_c} °C"
        yield Condition(rule=self._hot(gpu), subject=gpu.uuid, value=gpu.temperature_c, what=text)
        # Its power limit is where a GPU at work is expected to be.
        reasons = [reason for reason in gpu.throttled if reason is not ThrottleReason.POWER_CAP]
        yield _fact(self._throttled, gpu.uuid, bool(reasons), f"{name} is slowed down: {', '.join(reasons)}")
        for kind, rule, count in (
            ("corrected", self._corrected, gpu.ecc_corrected),
            ("uncorrected", self._uncorrected, gpu.ecc_uncorrected),
        ):
            text = f"{name}: {count} {kind} ECC errors since the driver was loaded"
            yield Condition(rule=rule, subject=f"{gpu.uuid}:{kind}", value=count, what=text)

    def _hot(self, gpu: Gpu) -> Rule:
        """Each GPU knows by itself where it slows down."""
        warning = self._settings.temperature_c
        if gpu.slowdown_c is not None:
            warning = min(warning, gpu.slowdown_c)
        return Rule(
            code=AlertCode.GPU_HOT,
            warning=warning,
            critical=gpu.slowdown_c,
            margin=self._settings.temperature_margin_c,
            unit="°C",
            hold_s=self._settings.hold_s,
        )

    def _of_host(self, node: NodeStatus) -> Iterator[Condition]:
        host, disk = node.host, node.disk
        if host is not None and host.memory_total_gb:
            percent = round(100 * (1 - host.memory_available_gb / host.memory_total_gb), 1)
            text = f"{percent:g} % of the host's {host.memory_total_gb:g} GB of memory are in use"
            yield Condition(rule=self._memory, subject="", value=percent, what=text)
        if disk is not None and disk.total_gb:
            percent = round(100 * disk.free_gb / disk.total_gb, 1)
            text = f"{disk.free_gb:g} GB ({percent:g} %) are free for {disk.path}"
            yield Condition(rule=self._disk, subject="", value=percent, what=text)


def _fact(rule: Rule, subject: str, is_so: bool, what: str) -> Condition:
    return Condition(rule=rule, subject=subject, value=float(is_so), what=what, is_fact=True)
