"""`system:status` and `system:backends`: what the platform and its workers do, pushed when it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from msgspec.structs import replace

from reverie_gateway.comfy_instances import health_of
from reverie_gateway.events import encode
from reverie_gateway.hub import Hub
from reverie_gateway.identity import Identity
from reverie_gateway.nodes import NodeBoard
from reverie_gateway.queue_board import QueueBoard
from reverie_gateway.session import STATUS_KEY
from reverie_gateway.storage_probe import StorageProbe
from reverie_jobs.backends import backend_of, load_progress
from reverie_jobs.comfy_instances import InstanceMirror
from reverie_jobs.mirror import Change, WorkerMirror
from reverie_protocol.jobs import Vram, Worker, WorkerState
from reverie_protocol.nodes import NodeStatus
from reverie_protocol.server_messages import QueueState, SystemBackends, SystemStatus
from reverie_runtime.actors import acting
from reverie_runtime.clock import Clock

#: Changes within this time are told together, in seconds.
DEBOUNCE_S = 0.1
#: A worker beats every 0.5 to 1 s; one that has not for this long is not counted.
ALIVE_S = 3.0
BACKENDS_KEY = "system:backends"
_NO_QUEUE = QueueState(pending=0, running=0, depth=0)


class StatusBoard:
    """Composes both, and pushes what has changed; the queue has a push of its own."""

    def __init__(
        self,
        queue: QueueBoard,
        workers: WorkerMirror,
        storage: StorageProbe,
        nodes: NodeBoard,
        instances: InstanceMirror,
        *,
        clock: Clock,
        version: str,
    ) -> None:
        self._queue = queue
        self._workers = workers
        self._storage = storage
        self._nodes = nodes
        self._instances = instances
        self._clock = clock
        self._version = version
        self._beats: dict[str, float] = {}
        self._dirty = asyncio.Event()
        self._told: SystemStatus | None = None
        self._told_backends: SystemBackends | None = None
        workers.listen(self._on_worker)
        storage.listen(self._dirty.set)
        nodes.listen(self._dirty.set)
        instances.listen(lambda _: self._dirty.set())
        for worker in workers:
            self._beats[f"{worker.name}.{worker.incarnation}"] = clock.monotonic()

    def message(self, viewer: Identity) -> SystemStatus:
        """The status as its viewer may see it."""
        return replace(self._platform(), queue_state=self._queue.state(viewer))

    def backends(self) -> SystemBackends:
        """The workers that beat lately, whether or not they take jobs."""
        return SystemBackends(available=tuple(map(backend_of, self._beating())))

    def serving(self) -> list[Worker]:
        """The workers that take jobs now, in a fixed order."""
        return self._alive()

    @property
    def superres_scales(self) -> set[int]:
        """What a pass of super-resolution multiplies by, on the workers that have it and take jobs now."""
        return {worker.superres_scale for worker in self._alive() if worker.superres}

    @property
    def mode(self) -> str | None:
        """The mode of jobs that name none, as the first worker has it."""
        return self._platform().mode

    @property
    def vram(self) -> Vram:
        """Accelerator memory of all there is."""
        return self._platform().vram

    @property
    def workers(self) -> int:
        """How many workers take jobs now."""
        return len(self._alive())

    def _platform(self) -> SystemStatus:
        """The status without the queue: the same for everybody."""
        workers, nodes = self._alive(), self._nodes.nodes
        progress = load_progress(self._beating())
        return SystemStatus(
            mode=next((worker.mode for worker in workers if worker.mode is not None), None),
            vram=total_vram(_accelerators(nodes, workers)),
            storage=self._storage.health,
            queue_state=_NO_QUEUE,
            loading=tuple(progress),
            load_progress=progress,
            workers=len(workers),
            version=self._version,
            nodes=nodes,
            comfy=tuple(map(health_of, self._instances.instances)),
        )

    @asynccontextmanager
    async def run(self, hub: Hub) -> AsyncIterator[None]:
        """Push changes while the context is open."""
        async with acting(partial(self._round, hub), name="status-board", clock=self._clock):
            yield

    async def _round(self, hub: Hub) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ALIVE_S / 2):  # silence is a change too
                await self._dirty.wait()
        await self._clock.sleep(DEBOUNCE_S)
        self._dirty.clear()
        self._push(hub)
        self._push_backends(hub)

    def _push(self, hub: Hub) -> None:
        platform = self._platform()
        outline = _outline(platform)
        if outline == self._told:
            return
        self._told = outline
        frames: dict[tuple[str, bool], bytes] = {}

        def frame_of(viewer: Identity) -> bytes:
            seen_by = viewer.owner, viewer.admin
            if seen_by not in frames:
                frames[seen_by] = encode(replace(platform, queue_state=self._queue.state(viewer)))
            return frames[seen_by]

        hub.tell(STATUS_KEY, frame_of)

    def _push_backends(self, hub: Hub) -> None:
        backends = self.backends()
        outline = SystemBackends(
            available=tuple(replace(backend, vram=Vram()) for backend in backends.available)
        )
        if outline == self._told_backends:
            return
        self._told_backends = outline
        frame = encode(backends)
        hub.tell(BACKENDS_KEY, lambda _: frame)

    def _on_worker(self, change: Change[Worker]) -> None:
        if change.record is None:
            self._beats.pop(change.key, None)
        else:
            self._beats[change.key] = self._clock.monotonic()
        self._dirty.set()

    def _alive(self) -> list[Worker]:
        """Workers that beat lately and take jobs, in a fixed order."""
        return [worker for worker in self._beating() if worker.state is WorkerState.READY]

    def _beating(self) -> list[Worker]:
        since = self._clock.monotonic() - ALIVE_S
        heard = (self._workers.get(key) for key, beat in sorted(self._beats.items()) if beat >= since)
        return [worker for worker in heard if worker is not None]


def _outline(platform: SystemStatus) -> SystemStatus:
    """What is worth a push: a node that comes or goes is, each of its figures is not."""
    return replace(platform, nodes=tuple(NodeStatus(node=node.node) for node in platform.nodes))


def _accelerators(nodes: Sequence[NodeStatus], workers: Sequence[Worker]) -> list[Vram]:
    """Each accelerator's memory once: a monitor asks the driver, a worker on a machine without one knows its own.

    A worker that does not say where it is counts only where no monitor sees any.
    """
    watched = {node.node: node.vram for node in nodes if node.vram.total_gb > 0}
    elsewhere = [
        worker.vram for worker in workers if worker.node not in watched and (worker.node or not watched)
    ]
    return [*watched.values(), *elsewhere]


def total_vram(parts: Sequence[Vram]) -> Vram:
    """Accelerator memory of all nodes, or of all workers, together; what one says if there is only one."""
    accelerated = [vram for vram in parts if vram.total_gb > 0]
    if len(accelerated) < 2:
        return next(iter(accelerated), Vram())
    total = sum(vram.total_gb for vram in accelerated)
    used = sum(vram.used_gb for vram in accelerated)
    return Vram(
        device=", ".join(vram.device for vram in accelerated),
        total_gb=total,
        allocated_gb=sum(vram.allocated_gb for vram in accelerated),
        used_gb=used,
        available_gb=sum(vram.available_gb for vram in accelerated),
        usage_percent=round(100 * used / total, 1),
    )
