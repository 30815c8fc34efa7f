"""Keeps the modes in step with their file, and remembers which one was switched to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from reverie_inference.modes.catalogue import Catalogue, CatalogueError, read_catalogue, single_model
from reverie_inference.settings import InferenceSettings
from reverie_protocol.instances import ActiveMode
from reverie_protocol.subjects import MODES_BUCKET, ModesReloaded
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bucket, BucketConfig, Bus, BusError, Message
from reverie_runtime.clock import Clock

MODES: Final = BucketConfig(name=MODES_BUCKET)
#: How often the file is looked at, in seconds.
LOOK_S: Final = 1.0

log = structlog.get_logger(__name__)


class ModesFile:
    """Where one worker's catalogue comes from; `use` hears of each new one.

    A file that cannot be used changes nothing: the former catalogue stays.
    """

    def __init__(self, settings: InferenceSettings, *, bus: Bus, clock: Clock) -> None:
        self._path = Path(settings.modes).expanduser() if settings.modes else None
        self._model = settings.model
        self._bus = bus
        self._clock = clock
        self._stamp: tuple[int, int] | None = None
        self.use: Callable[[Catalogue], None] = lambda catalogue: None

    async def read(self) -> Catalogue:
        """The catalogue as the file has it now; CatalogueError says what is wrong with it."""
        if self._path is None:
            return await asyncio.to_thread(single_model, self._model)
        self._stamp = _stamp(self._path)
        return await asyncio.to_thread(read_catalogue, self._path)

    async def on_reload(self, message: Message) -> None:
        """Somebody asks for the file to be read again, and how that went."""
        try:
            catalogue = await self.read()
        except CatalogueError as error:
            answer = ModesReloaded(error=str(error))
        else:
            self.use(catalogue)
            answer = ModesReloaded(modes=tuple(catalogue.modes), default_mode=catalogue.default_mode)
        if message.reply:
            await self._bus.publish(message.reply, msgspec.json.encode(answer))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Use each new version of the file during the block."""
        async with acting(self._look, name="modes", clock=self._clock):
            yield

    async def _look(self) -> None:
        await self._clock.sleep(LOOK_S)
        if self._path is None or _stamp(self._path) == self._stamp:
            return
        try:
            catalogue = await self.read()
        except CatalogueError as error:
            log.error("modes unchanged, their file is broken", reason=str(error))
        else:
            log.info("modes read anew", modes=len(catalogue.modes))
            self.use(catalogue)


class ModeMemory:
    """The mode a worker was switched to, for its next start."""

    def __init__(self, bucket: Bucket, worker: str, *, clock: Clock) -> None:
        self._bucket = bucket
        self._worker = worker
        self._clock = clock

    async def recall(self) -> str | None:
        """The mode that was switched to last, None if there was no such wish."""
        entry = await self._bucket.get(self._worker)
        if entry is None or entry.value is None:
            return None
        try:
            return msgspec.json.decode(entry.value, type=ActiveMode).mode
        except msgspec.MsgspecError:
            return None

    async def keep(self, mode: str) -> None:
        """Remember a switch; without the bus it is forgotten with this process."""
        record = ActiveMode(worker=self._worker, mode=mode, updated_at=self._clock.time())
        try:
            await self._bucket.put(self._worker, msgspec.json.encode(record))
        except BusError as error:
            log.warning("switch not remembered", mode=mode, reason=str(error))


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells one version of a file from another; None while it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
