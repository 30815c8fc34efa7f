"""`/api/*`: modes, models and memory, in the shapes that existing frontends speak."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency

from reverie_gateway.body import read_json
from reverie_gateway.identity import HttpRequest, identity_of
from reverie_gateway.model_desk import ModelDesk
from reverie_gateway.queue_board import QueueBoard
from reverie_gateway.status import StatusBoard
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.model_bodies import (
    ModelsStatus,
    ModesReread,
    ModesView,
    ModeSwitch,
    ModeSwitched,
    VramView,
)
from reverie_protocol.validation import validate


class ModelsController(Controller):
    """Look at modes and models; switch to a mode, read the modes again."""

    path = "/api"

    @get("/models/status")
    async def read_models_status(
        self,
        request: HttpRequest,
        queue_board: NamedDependency[QueueBoard],
        status_board: NamedDependency[StatusBoard],
    ) -> Response[ModelsStatus]:
        """The current mode, how many jobs wait, and the memory."""
        body = ModelsStatus(
            current_mode=status_board.mode,
            queue_size=queue_board.state(identity_of(request)).pending,
            vram=status_board.vram,
        )
        return Response(body)

    @get("/modes")
    async def read_modes(self, model_desk: NamedDependency[ModelDesk]) -> Response[ModesView]:
        """Every mode with its defaults."""
        return Response(model_desk.modes())

    @post("/modes/switch", status_code=200)
    async def switch_mode(
        self, request: HttpRequest, model_desk: NamedDependency[ModelDesk]
    ) -> Response[ModeSwitched]:
        """Change the mode of jobs that name none; a job in the queue, before all others."""
        body = validate(
            ModeSwitch,
            await read_json(request),
            loc_prefix=("body",),
            forbid_unknown=False,
            null_is_absent=True,
        )
        return Response(await model_desk.switch(body.mode, by=identity_of(request)))

    @post("/modes/reload", status_code=200)
    async def reload_modes(
        self, request: HttpRequest, model_desk: NamedDependency[ModelDesk]
    ) -> Response[ModesReread]:
        """Read `modes.yml` again; a broken one changes nothing."""
        return Response(await model_desk.reload(by=identity_of(request)))

    @get("/vram")
    async def read_vram(self, model_desk: NamedDependency[ModelDesk]) -> Response[VramView]:
        """Accelerator memory, and the models in it."""
        return Response(model_desk.vram())

    @post(["/models/load", "/models/unload"], status_code=200)
    async def refuse(self) -> Response[Any]:
        """Models come and go with the modes that jobs ask for."""
        raise ReverieError(
            ErrorCode.NOT_IMPLEMENTED, "models are loaded and unloaded by use; switch modes instead"
        )
