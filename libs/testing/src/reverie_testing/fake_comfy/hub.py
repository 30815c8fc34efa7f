"""Who hears what: the registered sockets, and the one loop that sends every event in its turn."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from typing import Any

from reverie_testing.fake_comfy.faults import Faults
from reverie_testing.fake_comfy.wire import Socket

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
IMAGE_FORMATS = {"JPEG": 1, "PNG": 2}

#: What one frame is for: a client_id, or None for everybody.
Target = Any


class Hub:
    """Sockets by clientId. One id has one place: whoever comes later takes it, whoever goes empties it."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._events: asyncio.Queue[tuple[str | bytes, Target]] = asyncio.Queue()
        self._metadata_wanted: set[str] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.registered: dict[str, Socket] = {}
        #: All sockets that are open, also those that nobody finds any more.
        self.sockets: set[Socket] = set()

    def register(self, socket: Socket) -> str:
        """Take the place of its clientId, or of a new one; the id."""
        client = socket.query.get("clientId", "") or uuid.uuid4().hex
        self.registered[client] = socket
        self.sockets.add(socket)
        self._metadata_wanted.discard(client)
        return client

    def forget(self, client: str, socket: Socket) -> None:
        """Empty the place of the id, whoever is in it by now: so the second of two sockets goes deaf."""
        self.sockets.discard(socket)
        self.registered.pop(client, None)

    def deafen(self) -> None:
        """Lose every registration: the sockets stay open and hear nothing more."""
        self.registered.clear()

    def freeze(self) -> None:
        """Send no event to anybody, as while one client does not read."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Send what was held up, and go on."""
        self._flowing.set()

    def want_metadata(self, client: str) -> None:
        """Previews of this client's prompts come with metadata from now on."""
        self._metadata_wanted.add(client)

    def tell(self, kind: str, data: dict[str, Any], client: Target = None) -> None:
        """Queue an event for one client, or for all."""
        self._events.put_nowait((json.dumps({"type": kind, "data": data}), client))

    def tell_text(self, node_id: str, text: str, client: Target) -> None:
        """Queue a line of text about a node."""
        name = node_id.encode()
        self._events.put_nowait((struct.pack(">II", TEXT, len(name)) + name + text.encode(), client))

    def wants_metadata(self, client: Target) -> bool:
        """Whether the owner asked for previews with metadata."""
        return client in self._metadata_wanted

    def tell_preview(
        self, image_format: str, image: bytes, client: Target, metadata: dict[str, Any] | None
    ) -> None:
        """Queue a preview, with metadata about its node or without."""
        if metadata is None:
            head = struct.pack(">II", PREVIEW, IMAGE_FORMATS[image_format])
        else:
            text = json.dumps(metadata | {"image_type": f"image/{image_format.lower()}"}).encode()
            head = struct.pack(">II", PREVIEW_WITH_METADATA, len(text)) + text
        self._events.put_nowait((head + image, client))

    async def publish(self) -> None:
        """Send for ever; who does not read holds up everybody. TypeError for a client_id that no dict takes."""
        while True:
            frame, client = await self._events.get()
            await self._flowing.wait()
            if client is None:
                targets = list(self.registered.values())
            else:
                found = self.registered.get(client)
                targets = [found] if found is not None else []
            for socket in targets:
                await self._faults.frames.deliver(socket, frame)
