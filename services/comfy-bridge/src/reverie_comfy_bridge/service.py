"""The ComfyUI bridge put together: read it from top to bottom and you know the service."""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from reverie_comfy_bridge.instance.actor import Instance
from reverie_comfy_bridge.instance.registry import Registry
from reverie_comfy_bridge.run.weights import NodeTimes
from reverie_comfy_bridge.settings import Settings
from reverie_comfy_bridge.work.delivery import PromptDelivery
from reverie_comfy_bridge.work.desk import Desk, Offer
from reverie_comfy_bridge.work.dispatcher import Dispatcher
from reverie_comfy_bridge.work.execution import Means
from reverie_comfy_bridge.work.inputs import Inputs
from reverie_comfy_bridge.work.outputs import Outputs
from reverie_comfy_bridge.work.previews import Previews
from reverie_comfy_bridge.work.prompts import platform_of
from reverie_comfy_bridge.work.tally import InstanceGauges, Tally
from reverie_comfy_bridge.work.worker import InstanceWorker
from reverie_comfy_bridge.workflows.catalogue import Workflows
from reverie_comfy_bridge.workflows.manifest import ManifestError
from reverie_jobs.comfy_instances import COMFY_INSTANCES, InstanceMirror
from reverie_jobs.controls import CONTROLS, ControlMirror
from reverie_jobs.mirror import WORKERS, JobMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_protocol.instances import ComfyInstance, ComfyStatus
from reverie_protocol.subjects import JOB_WATCH, worker_key, worker_ping
from reverie_runtime.bus.port import Bus, Message
from reverie_runtime.clock import Clock
from reverie_runtime.health import Health
from reverie_runtime.host import host_name
from reverie_runtime.http_server import StartError
from reverie_runtime.metrics import Metrics
from reverie_storage.settings import open_storage

#: Part of the drain deadline that is kept for giving unfinished jobs back.
REQUEUE_S = 2.0
MIB = 1 << 20

log = structlog.get_logger(__name__)


class Bridge:
    """All instances that this process serves."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    @property
    def workers(self) -> tuple[InstanceWorker, ...]:
        """The instances' workers."""
        return tuple(served for served in self.registry.served if isinstance(served, InstanceWorker))

    def offers(self) -> tuple[Offer, ...]:
        """What can be promised now: instances that can be reached and take work."""
        return tuple(
            Offer(worker.wish.name, worker.instance.classes, frozenset(worker.wish.tags))
            for worker in self.workers
            if worker.instance.classes is not None and worker.instance.usable and not worker.wish.draining
        )

    def records(self) -> tuple[ComfyInstance, ...]:
        """The instances as they are now."""
        return tuple(worker.fill(worker.wish) for worker in self.workers)

    def notes(self) -> dict[str, str]:
        """Instances that cannot be given work, and why."""
        return {
            record.name: f"{record.status}: {record.detail or record.reason}"
            for record in self.records()
            if record.status is not ComfyStatus.CONNECTED
        }


@contextlib.asynccontextmanager
async def serve(
    settings: Settings,
    *,
    bus: Bus,
    clock: Clock,
    health: Health | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[Bridge]:
    """Work while the context is open: yields once the table of instances is read, drains on leaving."""
    comfy = settings.comfy
    async with contextlib.AsyncExitStack() as stack:
        bucket = await bus.bucket(JOBS)
        jobs, controls, instances = JobMirror(), ControlMirror(), InstanceMirror()
        await stack.enter_async_context(follow(jobs, bucket))
        await stack.enter_async_context(follow(controls, await bus.bucket(CONTROLS)))
        table = await bus.bucket(COMFY_INSTANCES)
        await stack.enter_async_context(follow(instances, table))
        workers = await bus.bucket(WORKERS)
        store = JobStore(bucket, new_op=lambda: secrets.token_hex(8))

        workflows = Workflows(
            Path(comfy.workflows) if comfy.workflows else None, shipped=comfy.shipped_workflows, clock=clock
        )
        await _read(workflows)
        await stack.enter_async_context(workflows.watched())
        platform = platform_of(jobs.epoch)
        name = comfy.name or host_name()
        key = worker_key(f"comfy-bridge-{name}", secrets.token_hex(6))
        means = _means(settings, bus, store, workflows, platform=platform, clock=clock)
        dispatcher = Dispatcher(means.catalogue, allowed_nodes=comfy.nodes, clock=clock)
        registry_of_metrics = (metrics or Metrics()).registry
        tally = Tally(registry_of_metrics)
        # The same socket name over restarts, so that a prompt's events find the bridge that has come back.
        client = hashlib.sha256(f"{platform}.{name}".encode()).hexdigest()[:12]

        def serve_instance(record: ComfyInstance) -> InstanceWorker:
            instance = Instance(
                record.name,
                record.url,
                bridge=f"reverie-{client}",
                limits=comfy.limits,
                clock=clock,
                random=random.random,
            )
            instance.observation.inherit(record)
            worker = InstanceWorker(
                record,
                instance,
                bus=bus,
                workers=workers,
                store=store,
                jobs=jobs,
                controls=controls,
                dispatcher=dispatcher,
                means=means,
                clock=clock,
                tally=tally,
            )

            def changed() -> None:
                registry.dirty(record.name)
                worker.changed()

            instance.on_change = changed
            return worker

        registry = Registry(bus, table, instances, key=key, serve=serve_instance, clock=clock)
        bridge = Bridge(registry)
        dispatcher.candidates = lambda: bridge.workers
        dispatcher.elsewhere = lambda: registry.others_serve
        workflows.listen(dispatcher.forget_verdicts)
        registry_of_metrics.register(InstanceGauges(bridge.records))
        if health is not None:
            # A bridge without any instance does its work: one may be added at any time.
            health.add_notes("instances", bridge.notes)

        async def on_ping(message: Message) -> None:
            if message.reply:
                await bus.publish(message.reply, b"")

        for subject, handler in ((worker_ping(key), on_ping), (JOB_WATCH, means.previews.on_watch)):
            stack.push_async_callback((await bus.subscribe(subject, handler)).unsubscribe)
        desk = Desk(
            bus,
            catalogue=means.catalogue,
            offers=bridge.offers,
            allowed_nodes=comfy.nodes,
            others=lambda: registry.others_serve,
            clock=clock,
        )
        await stack.enter_async_context(desk.run())
        await registry.enter(comfy.given_instances)
        drain_s = max(0.0, settings.drain.deadline_s - REQUEUE_S)
        await stack.enter_async_context(registry.running(drain_s))
        log.info("bridge serves", key=key, workflows=len(workflows.catalogue))
        yield bridge


async def _read(workflows: Workflows) -> None:
    try:
        await workflows.read()
    except ManifestError as error:
        raise StartError(f"comfy.workflows: {error}") from error


def _means(
    settings: Settings, bus: Bus, store: JobStore, workflows: Workflows, *, platform: str, clock: Clock
) -> Means:
    """What every job is worked on with."""
    comfy = settings.comfy
    storage = open_storage(settings.storage)
    return Means(
        bus=bus,
        settings=comfy,
        catalogue=lambda: workflows.catalogue,
        inputs=Inputs(storage, clock=clock),
        outputs=Outputs(storage, clock=clock, max_bytes=int(comfy.output_mb * MIB), most=comfy.outputs),
        delivery=PromptDelivery(store, storage, clock=clock),
        previews=Previews(most_per_second=comfy.preview_hz, clock=clock),
        times=NodeTimes(),
        platform=platform,
        clock=clock,
    )
