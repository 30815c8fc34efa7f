"""Answers gateways: could this ComfyUI job run (`comfy.check`), and which workflows are there (`comfy.workflows`)?

Each bridge speaks for the instances it serves, and the first answer counts.  So a refusal, for which another bridge
may have a better answer, is said a little later where there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog

from reverie_comfy_bridge.workflows.catalogue import Catalogue
from reverie_comfy_bridge.workflows.manifest import Workflow
from reverie_comfy_bridge.workflows.node_classes import NodeClasses
from reverie_comfy_bridge.workflows.offers import merged, obstacle, require_workflow, verdict
from reverie_comfy_bridge.workflows.schema import input_image_of, schema_of
from reverie_protocol.comfy import ComfyCheck, ComfyVerdict, ComfyWorkflow, ComfyWorkflows
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.subjects import COMFY_CHECK, COMFY_WORKFLOWS
from reverie_runtime.bus.port import Bus, BusError, Message
from reverie_runtime.clock import Clock

#: By how much an answer is put off that another bridge may have a better one for, in seconds.
UNSURE_S: Final = 0.25
#: Largest answer in bytes, below what NATS carries; the names of thousands of models may be more.
MAX_ANSWER_BYTES: Final = 900_000
#: Questions that are answered at once; more are not, and gateways ask again.
MAX_ASKED: Final = 200

log = structlog.get_logger(__name__)


class Offer(msgspec.Struct, frozen=True):
    """An instance that can be reached and takes work: its name, its classes of nodes, and its tags."""

    instance: str
    classes: NodeClasses
    tags: frozenset[str] = frozenset()


class Desk:
    """Answers on the bus; `offers` are the instances as they are now, `catalogue` the workflows.

    `others` says whether another bridge has instances, which may know better.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        catalogue: Callable[[], Catalogue],
        offers: Callable[[], Sequence[Offer]],
        allowed_nodes: Collection[str],
        others: Callable[[], bool] = lambda: False,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._catalogue = catalogue
        self._offers = offers
        self._allowed = frozenset(allowed_nodes)
        self._others = others
        self._clock = clock
        self._answering: set[asyncio.Task[None]] = set()
        self._decoder = msgspec.json.Decoder(ComfyCheck)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Answer while the context is open."""
        subscriptions = [
            await self._bus.subscribe(COMFY_CHECK, self._on_check),
            await self._bus.subscribe(COMFY_WORKFLOWS, self._on_workflows),
        ]
        try:
            yield
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()
            for task in tuple(self._answering):
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    def judge(self, check: ComfyCheck) -> ComfyVerdict:
        """Whether some instance could run this now."""
        try:
            workflow = require_workflow(check.params, self._catalogue())
        except ReverieError as error:
            return ComfyVerdict(code=error.code, message=error.message)
        if workflow is None and not check.may_send_graphs:
            message = "graphs of one's own are for administrators; name a workflow"
            return ComfyVerdict(code=ErrorCode.FORBIDDEN, message=message)
        tags = workflow.tags if workflow is not None else frozenset()
        return merged(
            [
                verdict(check.params, workflow, classes=offer.classes, allowed=self._allowed)
                for offer in self._offers()
                if tags <= offer.tags
            ]
        )

    def workflows(self, *, choices: bool = True) -> ComfyWorkflows:
        """Every workflow, with the instances that can run it; without `choices` not with what these have."""
        offers = self._offers()
        described = (_described(each, offers, choices=choices) for each in self._catalogue().values())
        return ComfyWorkflows(workflows=tuple(described))

    def _on_check(self, message: Message) -> None:
        self._answer_soon(self._check, message)

    def _on_workflows(self, message: Message) -> None:
        self._answer_soon(self._tell_workflows, message)

    def _answer_soon(
        self, answer: Callable[[Message], Coroutine[None, None, None]], message: Message
    ) -> None:
        if len(self._answering) >= MAX_ASKED:
            log.warning("a question is not answered", reason="too many at once")
            return
        task = asyncio.create_task(answer(message), name="comfy-desk")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _check(self, message: Message) -> None:
        try:
            check = self._decoder.decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("unreadable question ignored", reason=type(error).__name__)
            return
        answer = self.judge(check)
        if answer.code and self._others():
            await self._clock.sleep(UNSURE_S)
        await self._reply(message, msgspec.json.encode(answer))

    async def _tell_workflows(self, message: Message) -> None:
        if not self._offers() and self._others():
            await self._clock.sleep(UNSURE_S)
        answer = msgspec.json.encode(self.workflows())
        if len(answer) > MAX_ANSWER_BYTES:
            answer = msgspec.json.encode(self.workflows(choices=False))
        await self._reply(message, answer)

    async def _reply(self, message: Message, answer: bytes) -> None:
        if message.reply:
            try:
                await self._bus.publish(message.reply, answer)
            except BusError as error:
                log.info("an answer was lost", reason=str(error))


def _described(workflow: Workflow, offers: Sequence[Offer], *, choices: bool) -> ComfyWorkflow:
    obstacles = {offer.instance: obstacle(workflow, offer.classes, offer.tags) for offer in offers}
    return ComfyWorkflow(
        id=workflow.id,
        title=workflow.title,
        description=workflow.description,
        params=schema_of(workflow, [offer.classes for offer in offers] if choices else ()),
        input_image=input_image_of(workflow),
        outputs=workflow.kinds,
        available=tuple(name for name, why in obstacles.items() if not why),
        unavailable={name: why for name, why in obstacles.items() if why},
    )
