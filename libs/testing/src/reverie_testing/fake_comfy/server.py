"""The fake ComfyUI as tests use it."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from reverie_testing.fake_comfy.control import CONTROL, control
from reverie_testing.fake_comfy.faults import Faults
from reverie_testing.fake_comfy.features import features_of
from reverie_testing.fake_comfy.files import Files
from reverie_testing.fake_comfy.instance import Instance
from reverie_testing.fake_comfy.routes import respond
from reverie_testing.fake_comfy.stock import classes_of
from reverie_testing.fake_comfy.wire import Request, Response, Socket, Streams, serve_connection

#: How long an answer takes to leave.
ANSWER_S = 0.02


class FakeComfy:
    """A ComfyUI of some version in this process: `async with FakeComfy(version="0.33.0") as comfy: comfy.url`.

    `pace` scales every wait of its nodes: 1 as recorded, 0 none. `preview_method` is what samplers show unless
    `extra_data` says otherwise. The port stays over restarts; so do `files` (but `temp`) and `faults`.
    """

    def __init__(
        self,
        version: str = "0.33.0",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pace: float = 1.0,
        preview_method: str = "none",
    ) -> None:
        self.features = features_of(version)
        self.host = host
        self.port = port
        self.pace = pace
        self.preview_method = preview_method
        self.files = Files()
        self.faults = Faults()
        self.classes = classes_of(self.features)
        #: Every prompt that ran to an end, in order, over all lives: (prompt id, success|error|interrupted).
        self.ended: list[tuple[str, str]] = []
        #: How often it was started.
        self.starts = 0
        self._instance: Instance | None = None
        self._server: asyncio.Server | None = None
        self._living: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._streams: set[Streams] = set()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def instance(self) -> Instance:
        """Its present life; AssertionError while it is down."""
        assert self._instance is not None, "the server is down"
        return self._instance

    async def start(self) -> None:
        """Come up, with nothing but the files."""
        self.files.wipe_temp()
        self._instance = Instance(
            self.features,
            self.files,
            self.faults,
            self.classes,
            pace=self.pace,
            preview_method=self.preview_method,
            on_end=lambda prompt_id, outcome: self.ended.append((prompt_id, outcome)),
        )
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._living = asyncio.create_task(self._live(self._instance))
        self.starts += 1

    async def kill(self) -> None:
        """Go away as by SIGKILL; idempotent."""
        living, self._living = self._living, None
        if living is not None:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
        self._drop()

    def kill_worker(self) -> None:
        """End the worker thread: HTTP goes on, what runs stays so for ever; only a restart helps."""
        self.instance.kill_worker()

    def abort_sockets(self) -> None:
        """Drop every socket without a close frame."""
        for socket in self.instance.hub.sockets:
            socket.abort()

    async def close_sockets(self, code: int = 1001) -> None:
        """Close every socket politely."""
        await asyncio.gather(*(socket.close(code) for socket in self.instance.hub.sockets))

    def freeze_sockets(self) -> None:
        """Make every link half-open: nothing is heard of either side, not even an end."""
        for socket in self.instance.hub.sockets:
            socket.freeze()

    def thaw_sockets(self) -> None:
        """Let the server notice the ends of half-open links: who has come back since goes deaf by that."""
        for socket in self.instance.hub.sockets:
            socket.thaw()

    def deafen(self) -> None:
        """Forget every socket's registration: pings are answered, no event is ever told to it again."""
        self.instance.hub.deafen()

    def freeze_events(self) -> None:
        """Hold up all events, as one client that does not read does."""
        self.instance.hub.freeze()

    def thaw_events(self) -> None:
        """Let them flow again."""
        self.instance.hub.thaw()

    def delete_outputs(self, pattern: str = ".*") -> int:
        """Remove saved files whose name matches; how many there were."""
        return self.files.delete("output", pattern)

    async def restart(self, away_s: float = 0.0) -> None:
        """Kill and start again on the same port."""
        await self.kill()
        await asyncio.sleep(away_s)
        await self.start()

    def restart_soon(self, away_s: float = 0.0) -> None:
        """The same, once the answer to who asks for it has left."""

        async def restart() -> None:
            await asyncio.sleep(ANSWER_S)
            await self.restart(away_s)

        self._restarting = asyncio.create_task(restart())

    async def _live(self, instance: Instance) -> None:
        # What ends the publisher ends the process of a real server.
        with contextlib.suppress(TypeError):
            await instance.live()
        self._drop()

    def _drop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for streams in list(self._streams):
            streams.abort()
        self._instance = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams = Streams(reader, writer)
        self._streams.add(streams)
        try:
            await serve_connection(streams, self._respond, self._attend)
        finally:
            self._streams.discard(streams)
            streams.close()

    async def _respond(self, request: Request) -> Response | None:
        if request.path.startswith(CONTROL):
            return await control(self, request)
        return await respond(self._instance, request) if self._instance is not None else None

    async def _attend(self, socket: Socket) -> None:
        if self._instance is not None:
            await self._instance.attend(socket)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
