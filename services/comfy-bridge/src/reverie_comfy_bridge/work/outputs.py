"""What a prompt made, from the instance into our storage; nothing is left to ComfyUI's keeping."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from reverie_comfy_bridge.instance.client import InstanceClient, TooLarge
from reverie_comfy_bridge.run.events import ImageSent
from reverie_comfy_bridge.wire.outputs import NodeOutputs, OutputFile, OutputText
from reverie_comfy_bridge.work.media import HEAD_BYTES, media_type, picture_size
from reverie_protocol.jobs import Output
from reverie_runtime.clock import Clock
from reverie_runtime.crash_points import crash_point
from reverie_storage.port import Storage, url_of
from reverie_worker.patience import with_patience

#: Pictures over the socket that are kept of one job, in bytes: they are held in memory until it ends.
MAX_SENT_BYTES: Final = 256 << 20

log = structlog.get_logger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """Outputs in storage; `gone` are files that the instance has no longer, `dropped` how many were too much."""

    outputs: tuple[Output, ...] = ()
    gone: tuple[OutputFile, ...] = ()
    dropped: int = 0


class Outputs:
    """Fetches files at once, whatever their kind, within limits of size and number."""

    def __init__(self, storage: Storage, *, clock: Clock, max_bytes: int, most: int) -> None:
        self._storage = storage
        self._clock = clock
        self._max_bytes = max_bytes
        self._most = most

    async def keep(
        self,
        client: InstanceClient,
        made: NodeOutputs,
        sent: Sequence[ImageSent],
        *,
        nodes: Collection[str],
    ) -> Kept:
        """Store what these nodes made (none named: all); StorageUnavailable, Unreachable.

        What was read as an input is not an output.
        """
        files = [file for file in made.files if file.folder_type != "input" and _wanted(file.node, nodes)]
        texts = [text for text in made.texts if _wanted(text.node, nodes)]
        pictures = [picture for picture in sent if _wanted(picture.node, nodes)]
        outputs: list[Output] = []
        gone: list[OutputFile] = []
        dropped = max(0, len(files) + len(texts) + len(pictures) - self._most)
        for file in files[: self._most]:
            try:
                output = await self._keep_file(client, file)
            except TooLarge:
                log.warning("an output is larger than is kept", node=file.node, kind=file.kind)
                dropped += 1
                continue
            if output is None:
                gone.append(file)
            else:
                outputs.append(output)
        outputs += [await self._keep_picture(each) for each in pictures[: self._most - len(outputs)]]
        outputs += [await self._keep_text(each) for each in texts[: self._most - len(outputs)]]
        return Kept(tuple(outputs), tuple(gone), dropped)

    async def _keep_file(self, client: InstanceClient, file: OutputFile) -> Output | None:
        with tempfile.TemporaryDirectory(prefix="reverie-") as folder:
            path = Path(folder) / "output"
            said = await client.fetch(file, path, max_bytes=self._max_bytes)
            if said is None:
                return None
            head = await asyncio.to_thread(_head, path)
            kind = media_type(head, said=said, filename=file.filename)
            size_bytes = path.stat().st_size
            crash_point("before.output")
            key = await with_patience(lambda: self._storage.put_file(path, content_type=kind), self._clock)
            crash_point("after.output")
        width, height = picture_size(head)
        return Output(
            url=url_of(key),
            key=key,
            content_type=kind,
            width=width,
            height=height,
            bytes=size_bytes,
            node=file.node,
            kind=file.kind,
            filename=file.filename,
            subfolder=file.subfolder,
            folder_type=file.folder_type,
        )

    async def _keep_picture(self, picture: ImageSent) -> Output:
        kind = media_type(picture.image[:HEAD_BYTES], said=picture.media_type)
        key = await self._put(picture.image, kind)
        width, height = picture_size(picture.image[:HEAD_BYTES])
        return Output(
            url=url_of(key),
            key=key,
            content_type=kind,
            width=width,
            height=height,
            bytes=len(picture.image),
            node=picture.node,
            kind="images",
        )

    async def _keep_text(self, text: OutputText) -> Output:
        content = text.text.encode()
        key = await self._put(content, "text/plain")
        return Output(
            url=url_of(key),
            key=key,
            content_type="text/plain",
            bytes=len(content),
            node=text.node,
            kind=text.kind,
        )

    async def _put(self, content: bytes, kind: str) -> str:
        return await with_patience(lambda: self._storage.put(content, content_type=kind), self._clock)


def _wanted(node: str, nodes: Collection[str]) -> bool:
    """Whether a node, or the one that a node made by expansion belongs to, is one of these."""
    return not nodes or node in nodes or node.partition(".")[0] in nodes


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)
