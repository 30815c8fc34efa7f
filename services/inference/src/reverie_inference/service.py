"""The inference service put together: read it from top to bottom and you know the service."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib.metadata import version

from reverie_inference.modes.catalogue import Catalogue, CatalogueError
from reverie_inference.modes.watch import MODES, ModeMemory, ModesFile
from reverie_inference.settings import InferenceSettings, Settings
from reverie_inference.worker.capabilities import Offer
from reverie_inference.worker.checkpoints import CHECKPOINTS, Checkpoints
from reverie_inference.worker.delivery import PictureDelivery
from reverie_inference.worker.engine_thread import Engine, EngineThread, Loader, LoadReached, Report
from reverie_inference.worker.inputs import Inputs
from reverie_inference.worker.tally import Tally
from reverie_inference.worker.worker import InferenceWorker
from reverie_jobs.controls import CONTROLS, ControlMirror
from reverie_jobs.mirror import WORKERS, JobMirror, WorkerMirror, follow
from reverie_jobs.reaper import requeue_former_self, withdraw_former_self
from reverie_jobs.store import JOBS, JobStore
from reverie_protocol.jobs import WorkerState
from reverie_protocol.subjects import JOB_WATCH, worker_ctl, worker_modes, worker_ping
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock
from reverie_runtime.health import Health
from reverie_runtime.host import host_name
from reverie_runtime.http_server import StartError
from reverie_runtime.metrics import Metrics
from reverie_storage.settings import limits_of, open_storage
from reverie_worker.heartbeat import Heartbeat

#: Part of the drain deadline that is kept for giving unfinished jobs back.
REQUEUE_S = 2.0
ENGINE_END_S = 1.0


@contextlib.asynccontextmanager
async def serve(
    settings: Settings,
    *,
    bus: Bus,
    clock: Clock,
    health: Health | None = None,
    metrics: Metrics | None = None,
    load: Loader | None = None,
) -> AsyncIterator[InferenceWorker]:
    """Work while the context is open: yields once the model is loaded (or known to be broken), drains on leaving.

    `load` makes the engine in its thread, by default from the settings.
    """
    inference = settings.inference
    async with contextlib.AsyncExitStack() as stack:
        bucket = await bus.bucket(JOBS)
        store = JobStore(bucket, new_op=lambda: secrets.token_hex(8))
        workers_bucket = await bus.bucket(WORKERS)
        jobs, workers = JobMirror(), WorkerMirror()
        await stack.enter_async_context(follow(jobs, bucket))
        await stack.enter_async_context(follow(workers, workers_bucket))
        controls = ControlMirror()
        await stack.enter_async_context(follow(controls, await bus.bucket(CONTROLS)))
        storage = open_storage(settings.storage)
        delivery = PictureDelivery(
            store,
            storage,
            clock=clock,
            metadata=inference.metadata,
            version=version("reverie-inference"),
        )
        checkpoints = Checkpoints(await bus.bucket(CHECKPOINTS))
        stack.push_async_callback(checkpoints.close)
        worker = InferenceWorker(
            inference,
            bus=bus,
            store=store,
            jobs=jobs,
            workers=workers,
            controls=controls,
            delivery=delivery,
            inputs=Inputs(storage, limits_of(settings.storage), clock=clock),
            clock=clock,
            name=inference.name or host_name(),
            incarnation=secrets.token_hex(6),
            node=inference.node or host_name(),
            tally=Tally((metrics or Metrics()).registry),
            checkpoints=checkpoints,
        )
        standing = worker.standing
        memory = ModeMemory(await bus.bucket(MODES), standing.outline.name, clock=clock)
        modes = ModesFile(inference, bus=bus, clock=clock)
        catalogue = await _first_catalogue(modes)
        report = _on_loop(worker)
        engine = EngineThread(
            load or _loader(inference, catalogue, await memory.recall(), report),
            report,
            unload_after_s=inference.idle_unload_s or None,
        )
        modes.use = engine.use
        worker.attach(engine)
        worker.on_switch = memory.keep
        if health is not None:
            worker.on_lost = health.give_up
            health.add("model", partial(_model_check, worker))

        subscriptions = (
            (worker_ping(standing.key), worker.on_ping),
            (worker_ctl(standing.key), worker.on_hint),
            (worker_modes(standing.key), modes.on_reload),
            (JOB_WATCH, worker.on_watch),
        )
        for subject, handler in subscriptions:
            stack.push_async_callback((await bus.subscribe(subject, handler)).unsubscribe)
        heartbeat = Heartbeat(workers_bucket, standing.key, standing.record, clock=clock)
        worker.on_change = heartbeat.hurry
        await stack.enter_async_context(heartbeat.run())
        await withdraw_former_self(
            bus, workers_bucket, workers, name=standing.outline.name, now_running=standing.key
        )
        await requeue_former_self(bus, store, jobs, name=standing.record().name, now=clock.time())

        await stack.enter_async_context(modes.watched())
        engine.start()
        stack.push_async_callback(_end, engine)
        stack.callback(jobs.listen(worker.on_job))
        stack.callback(controls.listen(worker.on_controls))
        claiming = asyncio.create_task(worker.claim_loop(), name="claims")
        stack.push_async_callback(_cancel, claiming)
        stack.push_async_callback(worker.drain, max(0.0, settings.drain.deadline_s - REQUEUE_S))
        await worker.settled.wait()
        yield worker


async def _first_catalogue(modes: ModesFile) -> Catalogue:
    try:
        return await modes.read()
    except CatalogueError as error:
        raise StartError(f"inference.modes: {error}") from error


def _loader(
    settings: InferenceSettings, catalogue: Catalogue, mode: str | None, report: Callable[[Report], None]
) -> Loader:
    def load() -> tuple[Engine, Offer]:
        from reverie_inference.worker.loading import load_engine

        return load_engine(
            settings, catalogue, mode=mode, on_progress=lambda fraction: report(LoadReached(fraction))
        )

    return load


def _on_loop(worker: InferenceWorker) -> Callable[[Report], None]:
    """Hands the engine's reports over to the event loop; what comes after its end is dropped."""
    loop = asyncio.get_running_loop()

    def report(happened: Report) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(worker.on_report, happened)

    return report


async def _model_check(worker: InferenceWorker) -> str | None:
    standing = worker.standing
    if standing.state in (WorkerState.STARTING, WorkerState.BROKEN):
        return standing.detail
    return None


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _end(engine: EngineThread) -> None:
    """Let the engine end; one that is deep in a step or still loading is left to end with the process."""
    engine.stop()
    await asyncio.to_thread(engine.join, ENGINE_END_S)
