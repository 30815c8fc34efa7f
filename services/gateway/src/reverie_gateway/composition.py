"""The gateway put together: read it from top to bottom and you know the service."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import msgspec
import structlog

from reverie_gateway.app import Parts, build_app
from reverie_gateway.audit import AUDIT_LOG, Auditor
from reverie_gateway.authentication import Authentication, Gatekeeper, verifier_of
from reverie_gateway.comfy_instances import Instances
from reverie_gateway.comfy_preflight import Preflight
from reverie_gateway.comfy_views import ComfyLens
from reverie_gateway.dream_desk import DreamDesk
from reverie_gateway.edge import Edge
from reverie_gateway.event_log import EventLog
from reverie_gateway.form_bytes import FormBytes
from reverie_gateway.gates import Gates
from reverie_gateway.hub import Hub
from reverie_gateway.inputs import Inputs
from reverie_gateway.jobs import Jobs
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.model_desk import ModelDesk
from reverie_gateway.nodes import NodeBoard
from reverie_gateway.obstacles import Obstacles
from reverie_gateway.openai_images import ImageDesk
from reverie_gateway.origin import OriginRule
from reverie_gateway.picture_bodies import PictureBodies
from reverie_gateway.queue_board import QueueBoard
from reverie_gateway.readiness import declare_checks
from reverie_gateway.refusal import unread
from reverie_gateway.retention import Janitor
from reverie_gateway.sdapi_desk import SdapiDesk
from reverie_gateway.sdapi_tasks import SdapiTasks
from reverie_gateway.settings import Settings
from reverie_gateway.socket import MAX_MESSAGE_BYTES
from reverie_gateway.standings import Standings
from reverie_gateway.status import StatusBoard
from reverie_gateway.storage_probe import StorageProbe
from reverie_gateway.stores import kept
from reverie_gateway.switching import Switches
from reverie_gateway.views import Lens
from reverie_gateway.waiting import Waiters
from reverie_gateway.watches import Watches
from reverie_gateway.wire import Wire
from reverie_gateway.writer import Turn
from reverie_jobs.comfy_instances import COMFY_INSTANCES, InstanceMirror
from reverie_jobs.controls import CONTROLS, ControlMirror
from reverie_jobs.mirror import WORKERS, JobMirror, WorkerMirror, follow
from reverie_jobs.reaper import Reaper
from reverie_jobs.store import JOBS, JobStore
from reverie_protocol.errors import CLOSE_GOING_AWAY
from reverie_protocol.subjects import DREAM_CANDIDATE, DREAM_STATUS, JOB_PREVIEW, JOB_PROGRESS, SYSTEM_STATUS
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock
from reverie_runtime.health import Health
from reverie_runtime.http_server import serve_http
from reverie_runtime.metrics import Metrics
from reverie_storage.settings import open_storage

log = structlog.get_logger(__name__)

#: Seconds that the server gets to answer what is in flight; twice as much of the drain deadline is kept for it.
ANSWER_S = 1


class Gateway(msgspec.Struct, frozen=True):
    """A gateway that serves; `url` is where, without a slash at its end."""

    url: str
    port: int


@asynccontextmanager
async def serve(
    settings: Settings, *, bus: Bus, clock: Clock, health: Health, metrics: Metrics
) -> AsyncIterator[Gateway]:
    """Serve while the context is open: yields when requests are answered, drains on leaving."""
    gatekeeper = Gatekeeper(verifier_of(settings.auth), clock=clock)
    async with AsyncExitStack() as stack:
        store_bucket = await bus.bucket(JOBS)
        store = JobStore(store_bucket, new_op=lambda: secrets.token_hex(8))
        jobs_mirror, workers_mirror = JobMirror(), WorkerMirror()
        watches = Watches(bus, clock=clock)
        retention_s = settings.gateway.retention_h * 3600
        counters = GatewayMetrics(metrics.registry)
        turn = Turn(counters)
        event_log = EventLog(retention_s=retention_s)
        hub = Hub(jobs_mirror, event_log, turn, on_watch=watches.begin, clock=clock)
        await stack.enter_async_context(follow(jobs_mirror, store_bucket, history=True))
        await stack.enter_async_context(follow(workers_mirror, await bus.bucket(WORKERS)))

        controls_bucket, controls = await bus.bucket(CONTROLS), ControlMirror()
        await stack.enter_async_context(follow(controls, controls_bucket))
        instances_bucket, instances = await bus.bucket(COMFY_INSTANCES), InstanceMirror()
        await stack.enter_async_context(follow(instances, instances_bucket))

        storage = open_storage(settings.storage)
        storage_probe = StorageProbe(storage, clock=clock)
        await stack.enter_async_context(storage_probe.run())

        nodes, dream_desk = NodeBoard(clock=clock), DreamDesk(bus, hub.of_owner)
        for subject, handler in (
            (JOB_PROGRESS, hub.on_progress),
            (JOB_PREVIEW, hub.on_preview),
            (SYSTEM_STATUS, nodes.on_status),
            (DREAM_STATUS, dream_desk.on_status),
            (DREAM_CANDIDATE, dream_desk.on_candidate),
        ):
            stack.push_async_callback((await bus.subscribe(subject, handler)).unsubscribe)
        await stack.enter_async_context(watches.run(hub.watched))

        queue_board = QueueBoard(bus, jobs_mirror, controls, hub, clock=clock)
        await stack.enter_async_context(queue_board.run())
        status_board = StatusBoard(
            queue_board,
            workers_mirror,
            storage_probe,
            nodes,
            instances,
            clock=clock,
            version=version("reverie-gateway"),
        )
        await stack.enter_async_context(status_board.run(hub))

        await stack.enter_async_context(Reaper(bus, store, jobs_mirror, clock=clock).run())
        janitor = Janitor(store, jobs_mirror, clock=clock, retention_s=retention_s)
        await stack.enter_async_context(janitor.run())
        stores = await stack.enter_async_context(
            kept(storage, settings.storage, jobs_mirror, bus=bus, clock=clock)
        )

        auditor = Auditor(await bus.stream(AUDIT_LOG), clock=clock)
        await stack.enter_async_context(auditor.run())
        standings = Standings(jobs_mirror, clock=clock)
        comfy_preflight = Preflight(bus, workers_mirror, clock=clock)
        jobs = Jobs(
            bus,
            store,
            jobs_mirror,
            workers_mirror,
            auditor=auditor,
            controls=controls,
            inputs=Inputs(stores.uploads),
            standings=standings,
            comfy_preflight=comfy_preflight,
            clock=clock,
            max_queued=settings.gateway.max_queued,
            random_bits=secrets.randbits,
        )
        stack.push_async_callback(jobs.close)
        waiters = Waiters(jobs_mirror)
        counters.observe("jobs_queued", "Jobs that wait", lambda: len(jobs_mirror.waiting))
        counters.observe("jobs_running", "Jobs that run", lambda: len(jobs_mirror.running))
        counters.observe(
            "missed_revisions", "Times that revisions of jobs were missed", lambda: hub.holes.seen
        )
        counters.observe("generate_waits", "POST /generate requests that wait", lambda: len(waiters))
        declare_checks(health, jobs_mirror, workers_mirror, storage_probe)
        app = build_app(
            Parts(
                comfy_instances=Instances(bus, instances_bucket, instances, auditor, clock=clock),
                comfy_lens=ComfyLens(hub, workers_mirror),
                comfy_preflight=comfy_preflight,
                dream_desk=dream_desk,
                form_bytes=FormBytes(max_file_mb=settings.storage.upload_mb),
                gatekeeper=gatekeeper,
                gates=Gates(bus, controls_bucket, controls, auditor),
                gateway_settings=settings.gateway,
                health=health,
                hub=hub,
                image_desk=ImageDesk(jobs, waiters, stores.objects, hub, settings=settings.gateway),
                jobs=jobs,
                lens=Lens(hub, standings, Obstacles(workers_mirror, controls, clock=clock)),
                metrics=counters,
                model_desk=ModelDesk(bus, jobs, status_board, auditor),
                objects=stores.objects,
                picture_bodies=PictureBodies(max_mb=settings.gateway.base64_mb),
                process_metrics=metrics,
                queue_board=queue_board,
                sdapi_desk=SdapiDesk(
                    jobs,
                    waiters,
                    stores.objects,
                    stores.uploads,
                    status_board,
                    settings=settings.gateway,
                    random_bits=secrets.randbits,
                ),
                sdapi_tasks=SdapiTasks(jobs_mirror, hub),
                status_board=status_board,
                storage_probe=storage_probe,
                switches=Switches(
                    jobs, waiters, workers_mirror, status_board, timeout_s=settings.gateway.generate_wait_s
                ),
                texts=stores.texts,
                thumbnails=stores.thumbnails,
                turn=turn,
                uploads=stores.uploads,
                waiters=waiters,
            )
        )
        edge = Edge(
            Authentication(app, gatekeeper=gatekeeper),
            rule=OriginRule(origins=settings.gateway.cors_origins, hosts=settings.gateway.allowed_hosts),
            metrics=counters,
            clock=clock,
            new_request_id=lambda: secrets.token_hex(8),
        )
        host, port = await stack.enter_async_context(
            serve_http(
                edge,
                host=settings.gateway.host,
                port=settings.gateway.port,
                setting="gateway.port",
                patience=settings.gateway.patience,
                error_json=unread,
                ws=Wire,
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                server_header=False,
                timeout_graceful_shutdown=ANSWER_S,
            )
        )
        stack.push_async_callback(_drain, hub, waiters, within_s=settings.drain.deadline_s - 2 * ANSWER_S)
        log.info("gateway serves", host=host, port=port)
        yield Gateway(url=f"http://{f'[{host}]' if ':' in host else host}:{port}", port=port)


async def _drain(hub: Hub, waiters: Waiters, *, within_s: float) -> None:
    """Before the server stops: sockets are sent elsewhere at once, requests that wait get most of the deadline."""
    for session in tuple(hub):
        session.outbox.close(CLOSE_GOING_AWAY)
    try:
        async with asyncio.timeout(max(0.0, within_s)):
            await waiters.until_idle()
    except TimeoutError:
        waiters.give_up()
