"""The dreams service put together: read it from top to bottom and you know the service."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from reverie_dreams.desk import Desk
from reverie_dreams.hosting import Hosting
from reverie_dreams.keeping import Keeper
from reverie_dreams.metrics import register
from reverie_dreams.publisher import Publisher
from reverie_dreams.scoring.panel import Panel, require_scorers
from reverie_dreams.search.moves import read_modifiers
from reverie_dreams.session.drafts import Drafts
from reverie_dreams.session.log import DREAM_LOG
from reverie_dreams.session.records import DREAM_HOSTS, DREAMS, HostMirror, SessionMirror, SessionStore
from reverie_dreams.settings import Settings, read_scorers
from reverie_dreams.strategies.library import load_strategies
from reverie_jobs.mirror import WORKERS, JobMirror, WorkerMirror, follow
from reverie_jobs.store import JOBS, JobStore
from reverie_protocol.subjects import DREAM_CTL, JOB_PREVIEW, dream_host
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock
from reverie_runtime.health import Health
from reverie_runtime.host import host_name
from reverie_runtime.http_server import StartError
from reverie_runtime.metrics import Metrics
from reverie_storage.settings import open_storage

log = structlog.get_logger(__name__)


@asynccontextmanager
async def serve(
    settings: Settings,
    *,
    bus: Bus,
    clock: Clock,
    health: Health | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[Hosting]:
    """Dream while the context is open: yields when requests are answered and orphans are taken over."""
    folders = [Path(settings.dreams.calibration)] if settings.dreams.calibration else []
    try:
        modifiers = read_modifiers(settings.dreams.modifiers)
        scorers = {choice.name: choice.options for choice in read_scorers(settings.dreams.scorers)}
        if settings.dreams.builtin_scorer and not scorers.get("builtin", "x"):
            scorers["builtin"] = settings.dreams.builtin_scorer
        require_scorers(scorers)
    except ValueError as error:
        raise StartError(str(error)) from error
    async with AsyncExitStack() as stack:
        panel = Panel(scorers, folders)
        stack.callback(panel.close)
        jobs_bucket, dreams_bucket = await bus.bucket(JOBS), await bus.bucket(DREAMS)
        hosts_bucket, log_bucket = await bus.bucket(DREAM_HOSTS), await bus.bucket(DREAM_LOG)
        jobs, workers, sessions, hosts = JobMirror(), WorkerMirror(), SessionMirror(), HostMirror()
        await stack.enter_async_context(follow(jobs, jobs_bucket))
        await stack.enter_async_context(follow(workers, await bus.bucket(WORKERS)))
        await stack.enter_async_context(follow(sessions, dreams_bucket))
        await stack.enter_async_context(follow(hosts, hosts_bucket))
        storage = open_storage(settings.storage)
        job_store = JobStore(jobs_bucket, new_op=lambda: secrets.token_hex(8))
        drafts = Drafts(bus, job_store, jobs, storage, clock=clock)
        store = SessionStore(dreams_bucket, new_op=lambda: secrets.token_hex(8))
        hosting = Hosting(
            settings.dreams,
            bus=bus,
            clock=clock,
            name=settings.dreams.name or host_name(),
            store=store,
            sessions=sessions,
            hosts=hosts,
            log_bucket=log_bucket,
            hosts_bucket=hosts_bucket,
            drafts=drafts,
            panel=panel,
            strategies=load_strategies(),
            publisher=Publisher(bus),
        )
        bus.on_connection(hosting.on_connection)
        stack.callback(jobs.listen(hosting.on_job))
        if health is not None:
            health.add("mirrors", _mirrors_check(jobs, sessions))
        if metrics is not None:
            register(metrics.registry, hosting)
        stack.push_async_callback((await bus.subscribe(JOB_PREVIEW, hosting.on_preview)).unsubscribe)
        await stack.enter_async_context(hosting.run())
        keeper = Keeper(
            settings.dreams,
            store=store,
            sessions=sessions,
            jobs=jobs,
            hosting=hosting,
            drafts=drafts,
            log_bucket=log_bucket,
            clock=clock,
        )
        await stack.enter_async_context(keeper.run())
        desk = Desk(
            settings.dreams,
            modifiers,
            bus=bus,
            clock=clock,
            hosting=hosting,
            sessions=sessions,
            workers=workers,
        )
        stack.push_async_callback(desk.close)
        for subject, queue in ((DREAM_CTL, "dreams"), (dream_host(hosting.key), "")):
            subscription = await bus.subscribe(subject, desk.on_request, queue=queue)
            stack.push_async_callback(subscription.unsubscribe)
        if settings.dreams.preload:
            panel.warm()
        log.info("dreams can begin", host=hosting.key, scorers=panel.names, sessions=len(hosting.actors))
        yield hosting


def _mirrors_check(jobs: JobMirror, sessions: SessionMirror) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        return None if jobs.ready.is_set() and sessions.ready.is_set() else "the bus is being read again"

    return check
