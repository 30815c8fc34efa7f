"""What is known of an instance now, as its record tells it."""

from __future__ import annotations

from collections import Counter

import msgspec

from reverie_comfy_bridge.instance.findings import Finding
from reverie_comfy_bridge.instance.reasons import Reason
from reverie_comfy_bridge.wire.answers import SystemStats
from reverie_protocol.instances import ComfyDevice, ComfyInstance, ComfyStatus
from reverie_runtime.clock import Clock


class Observation:
    """Folds connects, losses and looks into the observed half of a `ComfyInstance`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.connected = False
        #: Monotonic time since which it has not been reached; None while it is.
        self.away_since: float | None = clock.monotonic()
        self.remaining = 0
        self._running = 0
        self._ever = False
        self._finding: Finding | None = None
        self._reason = ""
        self._detail = "not reached yet"
        self._version = ""
        self.devices: tuple[ComfyDevice, ...] = ()
        self._attempts = 0
        self._last_connected: float | None = None
        self._last_disconnected: float | None = None
        self._disconnects: Counter[str] = Counter()

    @property
    def status(self) -> ComfyStatus:
        """In one word."""
        if not self.connected:
            return ComfyStatus.RECONNECTING if self._ever else ComfyStatus.DISCONNECTED
        return ComfyStatus.CONNECTED if self._finding is None else ComfyStatus.UNHEALTHY

    @property
    def detail(self) -> str:
        """Why it is not connected, or not healthy; empty if it is."""
        if self.connected:
            return self._finding.detail if self._finding is not None else ""
        return self._detail

    @property
    def refused(self) -> bool:
        """Whether nobody listens at its port: its process has ended, and all prompts with it."""
        return not self.connected and self._reason == Reason.REFUSED

    def inherit(self, record: ComfyInstance) -> None:
        """Go on counting where an earlier bridge, or an earlier process, left off."""
        self._disconnects = Counter(record.disconnects)
        self._last_connected = record.last_connected
        self._last_disconnected = record.last_disconnected
        self._ever = record.last_connected is not None
        self._version = record.version
        self.devices = record.devices

    def reached(self, stats: SystemStats) -> None:
        """A socket is open, and a look was done."""
        self.connected = self._ever = True
        self.away_since = None
        self._attempts = 0
        self._version = stats.version
        self.devices = tuple(
            ComfyDevice(
                name=device.name,
                type=device.type,
                vram_total_gb=round(device.vram_total_gb, 2),
                vram_free_gb=round(device.vram_free_gb, 2),
            )
            for device in stats.devices
        )
        self._last_connected = self._clock.time()

    def missed(self, reason: str, detail: str, *, attempts: int) -> None:
        """It could not be reached."""
        self._reason, self._detail = reason, detail
        self._attempts = attempts

    def lost(self, reason: Reason) -> None:
        """The socket ended."""
        if self.connected:
            self.away_since = self._clock.monotonic()
            self._last_disconnected = self._clock.time()
            self._disconnects[reason] += 1
        self.connected = False
        self._reason, self._detail = reason, "the connection ended"

    def saw(self, *, running: int, pending: int) -> None:
        """`/queue` was read."""
        self._running = running
        self.remaining = running + pending

    def judged(self, finding: Finding | None) -> bool:
        """What its health is; whether that is news."""
        news = finding != self._finding
        self._finding = finding
        return news

    def fill(self, record: ComfyInstance) -> ComfyInstance:
        """The record with what is observed."""
        well = self.status is ComfyStatus.CONNECTED
        finding = self._finding
        unhealthy = finding.reason if finding is not None else ""
        running = min(self._running, self.remaining)
        return msgspec.structs.replace(
            record,
            status=self.status if record.enabled else ComfyStatus.DISABLED,
            reason="" if well else unhealthy if self.connected else self._reason,
            detail=self.detail,
            version=self._version,
            devices=self.devices,
            last_connected=self._last_connected,
            last_disconnected=self._last_disconnected,
            reconnect_attempts=self._attempts,
            disconnects=dict(self._disconnects),
            queue_pending=self.remaining - running,
            queue_running=running,
        )
