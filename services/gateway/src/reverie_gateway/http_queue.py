"""`/v1/queue`: the queue as its owner may see it, and the gates that an operator opens and closes."""

from __future__ import annotations

from litestar import Controller, Response, get, patch
from litestar.di import NamedDependency

from reverie_gateway.body import read_json
from reverie_gateway.gates import Gates
from reverie_gateway.identity import HttpRequest, Identity, identity_of
from reverie_gateway.queue_board import QueueBoard
from reverie_protocol.controls import QueueControl, QueueControlPatch
from reverie_protocol.http_bodies import QueueView
from reverie_protocol.validation import validate


class QueueController(Controller):
    """Look at the queue; pause, resume and drain it."""

    path = "/v1/queue"

    @get("/")
    async def read_queue(
        self, request: HttpRequest, queue_board: NamedDependency[QueueBoard]
    ) -> Response[QueueView]:
        """What `queue:state` says now, and which gates are closed."""
        return Response(_view(queue_board, identity_of(request), queue_board.control))

    @patch("/")
    async def change_queue(
        self,
        request: HttpRequest,
        queue_board: NamedDependency[QueueBoard],
        gates: NamedDependency[Gates],
    ) -> Response[QueueView]:
        """Set gates; those that are not named stay as they are."""
        by = identity_of(request)
        gates.require_operator(by)  # before anything is said about the body
        asked = validate(QueueControlPatch, await read_json(request), loc_prefix=("body",))
        control = await gates.change(asked, by=by)
        return Response(_view(queue_board, by, control))


def _view(board: QueueBoard, by: Identity, control: QueueControl) -> QueueView:
    state = board.state(by)
    return QueueView(
        pending=state.pending,
        running=state.running,
        depth=state.depth,
        paused=state.paused,
        jobs=state.jobs,
        controls=control,
    )
