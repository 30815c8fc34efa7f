"""One life of a fake server: from a start to the next kill. Queue, history, sockets and cache live no longer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from reverie_testing.fake_comfy.cache import Cache
from reverie_testing.fake_comfy.execution import Run
from reverie_testing.fake_comfy.faults import Faults
from reverie_testing.fake_comfy.features import Features
from reverie_testing.fake_comfy.files import Files
from reverie_testing.fake_comfy.hub import Hub
from reverie_testing.fake_comfy.nodes import NodeClass, WorkerExit
from reverie_testing.fake_comfy.queue import PromptQueue
from reverie_testing.fake_comfy.wire import Socket


class Instance:
    """The state of a running server, its worker and its publisher."""

    def __init__(
        self,
        features: Features,
        files: Files,
        faults: Faults,
        classes: dict[str, NodeClass],
        *,
        pace: float,
        preview_method: str,
        on_end: Callable[[str, str], None],
    ) -> None:
        self.features = features
        self.files = files
        self.faults = faults
        self.classes = classes
        self.pace = pace
        self.preview_method = preview_method
        self.hub = Hub(faults)
        self.cache = Cache()
        self.queue = PromptQueue(self._tell_status)
        self.number = 0
        self.interrupted = False
        self.last_node: str | None = None
        self.client: Any = None
        self.worker: asyncio.Task[None] | None = None
        self._on_end = on_end

    async def live(self) -> None:
        """Work and publish until cancelled; raises what kills a real server's process."""
        self.worker = asyncio.create_task(self._work())
        try:
            await self.hub.publish()
        finally:
            self.worker.cancel()
            await asyncio.gather(self.worker, return_exceptions=True)
            for socket in self.hub.sockets:
                socket.abort()

    async def attend(self, socket: Socket) -> None:
        """Serve one socket until it is gone."""
        client = self.hub.register(socket)
        try:
            await socket.send(json.dumps({"type": "status", "data": {**self.status(), "sid": client}}))
            if self.client == client and self.last_node is not None:
                await socket.send(json.dumps({"type": "executing", "data": {"node": self.last_node}}))
            first = True
            async for text in socket.texts():
                if first and self.features.progress_state:
                    await self._greeted(socket, client, text)
                first = False
        finally:
            self.hub.forget(client, socket)

    def status(self) -> dict[str, Any]:
        """What `/prompt` and `status` tell."""
        return {"status": {"exec_info": {"queue_remaining": self.queue.remaining}}}

    def interrupt(self) -> None:
        """Ask the running prompt to end, if the request is not lost."""
        if self.faults.lost_interrupts > 0:
            self.faults.lost_interrupts -= 1
        else:
            self.interrupted = True

    def kill_worker(self) -> None:
        """End the worker thread, as an exception that nobody catches does."""
        if self.worker is not None:
            self.worker.cancel()

    def _tell_status(self) -> None:
        self.hub.tell("status", self.status())

    async def _greeted(self, socket: Socket, client: str, text: str) -> None:
        with contextlib.suppress(ValueError, AttributeError):
            greeting = json.loads(text)
            if greeting.get("type") == "feature_flags":
                if greeting.get("data", {}).get("supports_preview_metadata"):
                    self.hub.want_metadata(client)
                await socket.send(json.dumps({"type": "feature_flags", "data": flags(self.features)}))

    async def _work(self) -> None:
        while True:
            item = await self.queue.take()
            run = Run(self, item)
            self.client = run.client
            try:
                outcome = await run.run()
            except WorkerExit:
                return
            if self.faults.history_delay_s:
                await asyncio.sleep(self.faults.history_delay_s)
            self.queue.done(run.entry(outcome))
            self._on_end(run.prompt_id, outcome)
            if run.client is not None:
                self.hub.tell("executing", {"node": None, "prompt_id": run.prompt_id}, run.client)
            await asyncio.sleep(0)


def flags(features: Features) -> dict[str, Any]:
    """The server's own feature flags."""
    told: dict[str, Any] = {"supports_preview_metadata": True}
    if features.since(0, 33):
        told["supports_model_type_tags"] = True
    told["max_upload_size"] = 104857600
    if features.since(0, 33):
        told |= {"extension": {"manager": {"supports_v4": True}}, "node_replacements": True, "assets": False}
    return told
