"""What goes out on the bus, and when: on change, debounced, and again regularly for those who came later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import structlog

from reverie_jobs.backends import backend_of, load_progress
from reverie_monitor.measuring import Round
from reverie_monitor.steadiness import steadied, with_travellers
from reverie_monitor.workers import WorkerRegistry
from reverie_protocol.instances import AlertLevel, SystemAlert
from reverie_protocol.server_messages import (
    QueueMirror,
    QueueState,
    StorageHealth,
    SystemBackends,
    SystemStatus,
)
from reverie_protocol.subjects import SYSTEM_ALERT, SYSTEM_BACKENDS, SYSTEM_STATUS
from reverie_runtime.bus.port import Bus, BusError, Message

_NO_QUEUE = QueueState(pending=0, running=0, depth=0)

log = structlog.get_logger(__name__)


class Publisher:
    """Tells the bus about rounds, workers and alerts; what cannot be told now is told when the bus is back."""

    def __init__(self, bus: Bus, workers: WorkerRegistry, *, provider: str, version: str) -> None:
        self._bus = bus
        self._workers = workers
        self._provider = provider
        self._version = version
        self._queue = _NO_QUEUE
        self._queue_decoder = msgspec.json.Decoder(QueueMirror)
        self._queue_seen: tuple[str, int] = ("", 0)
        self._told: SystemStatus | None = None
        self._told_backends: SystemBackends | None = None
        #: Set when something may have changed.
        self.dirty = asyncio.Event()

    async def on_queue_state(self, message: Message) -> None:
        """`queue.state` from a gateway; it stays so until one says otherwise, without its rows."""
        try:
            mirror = self._queue_decoder.decode(message.data)
        except msgspec.MsgspecError as error:
            log.warning("unreadable queue state ignored", reason=str(error))
            return
        epoch, seq = self._queue_seen
        if mirror.epoch == epoch and mirror.seq < seq:
            return  # of a gateway that lags behind another one
        self._queue_seen = mirror.epoch, mirror.seq
        self._queue = QueueState(
            pending=mirror.pending, running=mirror.running, depth=mirror.depth, paused=mirror.paused
        )

    def status(self, found: Round) -> SystemStatus:
        """The platform as it is now."""
        ready = self._workers.ready()
        progress = load_progress(self._workers.alive())
        return SystemStatus(
            mode=next((worker.mode for worker in ready if worker.mode is not None), None),
            vram=found.node.vram,
            storage=StorageHealth(ok=not found.storage_reason, provider=self._provider),
            queue_state=self._queue,
            loading=tuple(progress),
            load_progress=progress,
            workers=len(ready),
            version=self._version,
            nodes=(found.node,),
        )

    async def tell(self, found: Round, *, again: bool) -> None:
        """Publish what has changed; with `again` everything."""
        now = self.status(found)
        steady = steadied(self._told, now)
        if again or steady != self._told:
            self._told = with_travellers(steady, now)
            await self._publish(SYSTEM_STATUS, self._told)
        backends = SystemBackends(available=tuple(map(backend_of, self._workers.alive())))
        backends = steadied(self._told_backends, backends)
        if again or backends != self._told_backends:
            self._told_backends = backends
            await self._publish(SYSTEM_BACKENDS, backends)

    async def alert(self, alerts: Iterable[SystemAlert], *, again: bool = False) -> None:
        """Publish alerts; those that are new are logged too."""
        for alert in alerts:
            await self._publish(SYSTEM_ALERT, alert)
            if not again:
                _log(alert)

    async def _publish(self, subject: str, payload: msgspec.Struct) -> None:
        try:
            await self._bus.publish(subject, msgspec.json.encode(payload))
        except BusError as error:  # it is told again when the bus is back
            log.debug("not published", subject=subject, reason=str(error))


def _log(alert: SystemAlert) -> None:
    fields = {"code": alert.code, "key": alert.key}
    if alert.resolved:
        log.info(f"alert {alert.message}", **fields)
    elif alert.level is AlertLevel.CRITICAL:
        log.error(f"alert: {alert.message}", **fields)
    else:
        log.warning(f"alert: {alert.message}", **fields)
