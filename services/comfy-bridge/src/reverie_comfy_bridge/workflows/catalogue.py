"""All workflows: those that ship, and an operator's own folder, kept in step with its files.

A workflow of the operator's replaces a shipped one of the same name.  The folder is read as a whole: one file that
cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from reverie_comfy_bridge.workflows.manifest import ManifestError, Workflow, read_workflow
from reverie_runtime.actors import acting
from reverie_runtime.clock import Clock

#: Where the workflows lie that come with the bridge.
SHIPPED: Final = Path(__file__).parent.parent / "templates"
MAX_WORKFLOWS: Final = 500
#: How often the folder is looked at, in seconds.
LOOK_S: Final = 1.0

Catalogue = Mapping[str, Workflow]
_Stamp = tuple[tuple[str, int, int], ...]

log = structlog.get_logger(__name__)


def read_folder(folder: Path) -> dict[str, Workflow]:
    """The workflows whose manifests lie in a folder, by id; ManifestError for the first that is wrong."""
    if not folder.is_dir():
        raise ManifestError(f"{folder} is no folder")
    manifests = sorted(folder.glob("*.toml"))
    if len(manifests) > MAX_WORKFLOWS:
        raise ManifestError(f"{folder.name} has more than {MAX_WORKFLOWS} workflows")
    return {path.stem: read_workflow(path) for path in manifests}


class Workflows:
    """The workflows there are; `listen` hears of each new version of them."""

    def __init__(self, folder: Path | None, *, shipped: bool = True, clock: Clock) -> None:
        self._folder = folder
        self._shipped = shipped
        self._clock = clock
        self._stamp: _Stamp = ()
        self._listeners: list[Callable[[], None]] = []
        self.catalogue: Catalogue = {}

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the catalogue is another one."""
        self._listeners.append(listener)

    async def read(self) -> None:
        """Read all of them; ManifestError says what is wrong, and then the former catalogue stays."""
        self._stamp = _stamp(self._folder)
        read = await asyncio.to_thread(self._read)
        if read != self.catalogue:
            self.catalogue = read
            for listener in self._listeners:
                listener()

    def _read(self) -> dict[str, Workflow]:
        shipped = read_folder(SHIPPED) if self._shipped else {}
        return dict(sorted((shipped | (read_folder(self._folder) if self._folder else {})).items()))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Use each new version of the folder during the block; `read` comes first."""
        async with acting(self._look, name="workflows", clock=self._clock):
            yield

    async def _look(self) -> None:
        await self._clock.sleep(LOOK_S)
        if self._folder is None or _stamp(self._folder) == self._stamp:
            return
        try:
            await self.read()
        except ManifestError as error:
            log.error("workflows unchanged, their folder is broken", reason=str(error))
        else:
            log.info("workflows read anew", workflows=len(self.catalogue))


def _stamp(folder: Path | None) -> _Stamp:
    """What tells one version of a folder from another."""
    if folder is None:
        return ()
    found = []
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in (".toml", ".json"):
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_size))
    except OSError:
        return ()
    return tuple(found)
