"""The Litestar application: routes, what they may ask for by name, and how errors become answers."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Litestar
from litestar.datastructures import ResponseHeader
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from reverie_gateway.authentication import Gatekeeper
from reverie_gateway.body import MAX_BODY_BYTES
from reverie_gateway.comfy_instances import Instances
from reverie_gateway.comfy_preflight import Preflight
from reverie_gateway.comfy_views import ComfyLens
from reverie_gateway.dream_desk import DreamDesk
from reverie_gateway.form_bytes import FormBytes
from reverie_gateway.gates import Gates
from reverie_gateway.http_comfy import (
    ComfyInstancesController,
    ComfyJobsController,
    ComfyWorkflowsController,
)
from reverie_gateway.http_dreams import DreamsController, DreamSessionsController
from reverie_gateway.http_events import stream_events
from reverie_gateway.http_generate import generate
from reverie_gateway.http_jobs import JobsController
from reverie_gateway.http_models import ModelsController
from reverie_gateway.http_openai import ImagesController, list_models, read_model
from reverie_gateway.http_page import read_page
from reverie_gateway.http_queue import QueueController
from reverie_gateway.http_sdapi import PicturesController, read_task_progress
from reverie_gateway.http_sdapi_lists import ListsController
from reverie_gateway.http_storage import StorageController
from reverie_gateway.http_superres import superres
from reverie_gateway.http_system import (
    read_health,
    read_metrics,
    read_openapi,
    read_readiness,
    read_status,
)
from reverie_gateway.http_uploads import upload
from reverie_gateway.hub import Hub
from reverie_gateway.jobs import Jobs
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.model_desk import ModelDesk
from reverie_gateway.objects import Objects
from reverie_gateway.openai_images import ImageDesk
from reverie_gateway.picture_bodies import PictureBodies
from reverie_gateway.problem import on_exception, on_http_exception, on_reverie_error
from reverie_gateway.queue_board import QueueBoard
from reverie_gateway.sdapi_desk import SdapiDesk
from reverie_gateway.sdapi_tasks import SdapiTasks
from reverie_gateway.settings import GatewaySettings
from reverie_gateway.socket import converse
from reverie_gateway.status import StatusBoard
from reverie_gateway.storage_probe import StorageProbe
from reverie_gateway.switching import Switches
from reverie_gateway.texts import Texts
from reverie_gateway.thumbnails import Thumbnails
from reverie_gateway.views import Lens
from reverie_gateway.waiting import Waiters
from reverie_gateway.writer import Turn
from reverie_protocol.errors import ReverieError
from reverie_runtime.health import Health
from reverie_runtime.metrics import Metrics
from reverie_storage.uploads import Uploads

#: The type of a parameter in the path of a route, as in `{job_id:str}`.
_PARAMETER_TYPE = re.compile(r":\w+\}")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What handlers may ask for, each by the name of its field."""

    comfy_instances: Instances
    comfy_lens: ComfyLens
    comfy_preflight: Preflight
    dream_desk: DreamDesk
    form_bytes: FormBytes
    gatekeeper: Gatekeeper
    gates: Gates
    gateway_settings: GatewaySettings
    health: Health
    hub: Hub
    image_desk: ImageDesk
    jobs: Jobs
    lens: Lens
    metrics: GatewayMetrics
    model_desk: ModelDesk
    objects: Objects
    picture_bodies: PictureBodies
    process_metrics: Metrics
    queue_board: QueueBoard
    sdapi_desk: SdapiDesk
    sdapi_tasks: SdapiTasks
    status_board: StatusBoard
    storage_probe: StorageProbe
    switches: Switches
    texts: Texts
    thumbnails: Thumbnails
    turn: Turn
    uploads: Uploads
    waiters: Waiters


def build_app(parts: Parts) -> Litestar:
    """The application over its parts."""
    return Litestar(
        route_handlers=[
            ComfyInstancesController,
            ComfyJobsController,
            ComfyWorkflowsController,
            converse,
            DreamsController,
            DreamSessionsController,
            generate,
            ImagesController,
            JobsController,
            list_models,
            ListsController,
            ModelsController,
            PicturesController,
            QueueController,
            read_health,
            read_metrics,
            read_model,
            read_openapi,
            read_page,
            read_readiness,
            read_status,
            read_task_progress,
            StorageController,
            stream_events,
            superres,
            upload,
        ],
        dependencies={name: _provide(getattr(parts, name)) for name in Parts.__struct_fields__},
        exception_handlers={
            ReverieError: on_reverie_error,
            HTTPException: on_http_exception,
            Exception: on_exception,
        },
        before_send=[name_every_method],
        response_headers=[
            ResponseHeader(name="Cache-Control", value="no-store")
        ],  # where nothing else is said
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
    )


async def name_every_method(message: Message, scope: Scope) -> None:
    """Complete `Allow` in the answer to OPTIONS: the framework names the methods of one handler alone."""
    if message["type"] != "http.response.start" or scope.get("method") != "OPTIONS":
        return
    template = scope.get("path_template")
    for path, handlers in scope["litestar_app"].route_handler_method_map.items():
        if _PARAMETER_TYPE.sub("}", path) == template:
            others = [pair for pair in message["headers"] if pair[0].lower() != b"allow"]
            message["headers"] = [*others, (b"allow", ", ".join(sorted(handlers)).encode())]


def _provide(part: Any) -> Provide:
    return Provide(lambda: part, sync_to_thread=False)
