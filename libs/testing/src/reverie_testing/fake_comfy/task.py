"""A running node's hold on its prompt and server."""

# ruff: noqa: D102 -- `nodes.Call` says what each does

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from reverie_testing.fake_comfy.files import annotated
from reverie_testing.fake_comfy.nodes import NodeFailure
from reverie_testing.fake_comfy.pictures import Picture, png

if TYPE_CHECKING:
    from reverie_testing.fake_comfy.execution import Run


METHODS = ("none", "auto", "latent2rgb", "taesd")


class NodeTask:
    """See `nodes.Call`."""

    def __init__(self, run: Run, node_id: str) -> None:
        self.node_id = node_id
        self._run = run
        method = run.host.preview_method
        if run.host.features.preview_method:
            method = run.item[3].get("preview_method", method)
        if method not in METHODS:
            method = run.host.preview_method
        self.previews = method != "none"

    async def rest(self, milliseconds: float) -> None:
        await asyncio.sleep(milliseconds / 1000 * self._run.host.pace)

    async def progress(self, value: float, maximum: float, preview: tuple[str, bytes] | None = None) -> None:
        self._run.check(self.node_id)
        self._run.progress.step(self.node_id, value, maximum, preview)

    async def text(self, text: str) -> None:
        if self._run.host.features.text_frames:
            self._run.host.hub.tell_text(self.node_id, text, self._run.client)

    def save(self, kind: str, prefix: str, picture: Picture) -> dict[str, str]:
        texts = {"prompt": json.dumps(self._run.item[2])}
        for name, value in self._run.item[3].get("extra_pnginfo", {}).items():
            texts[name] = json.dumps(value)
        return self._run.host.files.save(kind, prefix, png(picture, texts))

    def file(self, name: str) -> bytes:
        data = self._run.host.files.kept.get(annotated(name))
        if data is None:
            raise NodeFailure("FileNotFoundError", f"[Errno 2] No such file or directory: {name!r}")
        return data
